"""`classlens explore`: pages of stores, their photos and the live model, from a server on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from classlens.cli.app import app, reporting
from classlens.cli.options import ModelOptions, expand_options
from classlens.errors import ClasslensError
from classlens.text import say

if TYPE_CHECKING:
    from classlens.explore.explorer import Explorer


@app.command()
@reporting
@expand_options
def explore(
    weights: ModelOptions,
    stores: Annotated[
        list[str] | None, typer.Argument(metavar="[STORE]…", help="Stores of `classlens measure`.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Name of a model of {libraries}; that of the first store when left out, or builtin:photos."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Photos as LAYOUT:PLACE; where they were measured when left out.")
    ] = None,
    edit_means: Annotated[
        Path | None, typer.Option(help="File of `classlens means`, for edits that put in means.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the address; 0 chooses a free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Name or number of this machine; one that others reach needs the printed token.")
    ] = "127.0.0.1",
    open_: Annotated[bool, typer.Option("--open", help="Open the address in a browser.")] = False,
    export: Annotated[Path | None, typer.Option(help="Write the pages as a static site, and start no server.")] = None,
    export_images: Annotated[
        str | None, typer.Option(help="Images with a page of the site: positions, such as 0-11,40, or list:FILE.")
    ] = None,
    export_classes: Annotated[
        str | None, typer.Option(help="Classes with a page of the site, names or indices; all when left out.")
    ] = None,
) -> None:
    """Browse stores and photos, change the model with a click, and open photos of yours."""
    if export is None and (export_images is not None or export_classes is not None):
        name = "--export-images" if export_images is not None else "--export-classes"
        raise ClasslensError(f"{name} was given without --export: it chooses pages of a static site; add --export DIR")
    if export is not None:
        from classlens.explore.export import check_site, export_site

        check_site(export)
    explorer = _explorer(stores or [], model, data, edit_means, weights, live=export is None)
    if export is not None:
        from classlens.render.terminal.progress import progress_bar

        with progress_bar("writing the pages") as update:
            count = export_site(explorer, export, images=export_images, classes=export_classes, report=update)
        say(f"Pages: {count:,}")
        say(f"Site: {export / 'index.html'}")
        return
    from classlens.explore.serve import serve

    serve(explorer, host, port, open_browser=open_)


def _explorer(
    stores: list[str],
    model: str | None,
    data: str | None,
    means_file: Path | None,
    weights: ModelOptions,
    *,
    live: bool,
) -> Explorer:
    """The stores with their photos, and the live model."""
    from classlens import __version__
    from classlens.analysis.measured_store import MeasuredStore
    from classlens.data.reopen import reopen
    from classlens.explore.explorer import Explorer, open_stores
    from classlens.forward.means import require_means_of
    from classlens.lens.load import load
    from classlens.lens.means_file import load_means
    from classlens.render.terminal.progress import progress_bar

    with progress_bar("opening the stores") as update:
        measured = [MeasuredStore(store) for store in stores]
        name = model or (str(measured[0].attrs["model"]) if measured else "builtin:photos")
        update("loading the model", 0, 1)
        options = weights.load_options(name)
        try:
            lens = load(name, **options)
        except ClasslensError as error:
            if model is not None or not measured or any(value is not None for value in options.values()):
                raise
            say(f"The model of the store is not at hand ({error}): pages show what was measured.", stderr=True)
            lens = None
        explored = open_stores(measured, lens, lambda store: reopen(store.attrs, data))
    if model is not None and explored and all(store.lens is None for store in explored):
        raise ClasslensError(f"store {explored[0].measured.url!r} cannot be shown with it: {explored[0].without_lens}")
    for store in explored:
        for note in store.notes:
            say(f"{store.title}: {note}", stderr=True)
    means = None
    if means_file is not None:
        means = load_means(means_file)
        if lens is None:
            raise ClasslensError("--edit-means was given, but no model was loaded: add --model")
        require_means_of(lens.view, means)
    return Explorer(
        explored,
        lens,
        __version__,
        live,
        model=name,
        load_options=options,
        means=means,
        means_file=None if means_file is None else str(means_file),
    )
