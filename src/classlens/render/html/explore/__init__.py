"""Style and scripts of the pages of `classlens explore`."""
