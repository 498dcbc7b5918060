"use strict";
// The swipe between two pictures. Without this script, and on paper, they stand side by side.
for (const box of document.querySelectorAll("[data-swipe]")) {
  const layers = box.querySelector(".layers");
  const figures = [...layers.querySelectorAll("figure")];
  if (figures.length < 2) continue;
  const range = box.querySelector("input[type=range]");
  const [left, right] = box.querySelectorAll("select");
  const divider = box.querySelector(".divider");
  const name = (figure) => figure.querySelector("figcaption").textContent.trim();

  const draw = () => {
    const share = Number(range.value);
    figures.forEach((figure, i) => {
      const isLeft = i === Number(left.value);
      const isRight = i === Number(right.value);
      figure.classList.toggle("left", isLeft);
      figure.classList.toggle("right", isRight && !isLeft);
      figure.style.clipPath = isLeft && !isRight ? `inset(0 ${100 - share}% 0 0)` : "";
    });
    divider.style.left = `${share}%`;
    range.setAttribute(
      "aria-valuetext",
      `${share} per cent ${name(figures[left.value])}, ${100 - share} per cent ${name(figures[right.value])}`,
    );
  };
  const drag = (event) => {
    const area = layers.getBoundingClientRect();
    range.value = Math.round((100 * (event.clientX - area.left)) / area.width);
    draw();
  };
  layers.addEventListener("pointerdown", (event) => {
    layers.setPointerCapture(event.pointerId);
    drag(event);
  });
  layers.addEventListener("pointermove", (event) => {
    if (layers.hasPointerCapture(event.pointerId)) drag(event);
  });
  layers.addEventListener("dragstart", (event) => event.preventDefault());
  for (const control of [range, left, right]) control.addEventListener("input", draw);
  box.classList.add("live");
  draw();
}
