// The tip beside what is pointed at.
function showTip(anchor, lines) {
  const tip = byId("tip");
  tip.replaceChildren(...lines.map((line, i) => make(i ? "div" : "strong", {}, line)));
  tip.hidden = false;
  const box = anchor.getBoundingClientRect();
  const tipBox = tip.getBoundingClientRect();
  const windowWidth = document.documentElement.clientWidth;
  const left = Math.min(Math.max(box.left + box.width / 2 - tipBox.width / 2, 6), windowWidth - tipBox.width - 6);
  const above = box.top - tipBox.height - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 4 ? above : box.bottom + 8}px`;
}
function hideTip() {
  byId("tip").hidden = true;
}
