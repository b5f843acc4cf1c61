// Draws the array in one cycle: which cells multiply, on what, and where a weight is being shifted in.
"use strict";
const holder = document.getElementById("products");
if (holder) {
  const data = JSON.parse(holder.textContent);
  const [which, play, slider, now] = ["which", "play", "cycle", "now"].map((id) => document.getElementById(id));
  const canvas = document.getElementById("array");
  const pen = canvas.getContext("2d");
  const size = Math.max(4, Math.floor(Math.min(640 / data.rows, 640 / data.cols)));
  canvas.width = size * data.cols;
  canvas.height = size * data.rows;
  const stationary = data.dataflow !== "os";
  let timer = 0;

  const product = () => data.products[Number(which.value)];
  const loading = () => (stationary ? data.rows : 0); // cycles in which a tile is shifted in, one row each
  const last = () => loading() + product().m + data.rows + data.cols - 2;

  function draw() {
    const p = product();
    const cycle = Number(slider.value);
    const t = cycle - loading();
    let useful = 0;
    for (let r = 0; r < data.rows; r++) {
      for (let c = 0; c < data.cols; c++) {
        const inside = r < p.rows && c < p.cols;
        const works = t - r - c >= 0 && t - r - c < p.m;
        const shifts = t < 0 && r <= cycle && inside;
        useful += works && inside;
        pen.fillStyle = works ? (inside ? "#2a9d5c" : "#9a9a9a") : shifts ? "#edae49" : "#8882";
        pen.clearRect(c * size, r * size, size, size);
        pen.fillRect(c * size, r * size, size - 1, size - 1);
      }
    }
    const share = ((100 * useful) / (data.rows * data.cols)).toFixed(1);
    now.textContent = `cycle ${cycle} of ${last() - 1}: ${useful} useful products, ${share} % of the array`;
  }

  function choose() {
    slider.max = last() - 1;
    slider.value = 0;
    draw();
  }

  function toggle() {
    if (timer) {
      clearInterval(timer);
      timer = 0;
    } else {
      timer = setInterval(() => {
        slider.value = Number(slider.value) + 1 >= last() ? 0 : Number(slider.value) + 1;
        draw();
      }, 80);
    }
    play.textContent = timer ? "pause" : "play";
  }

  which.addEventListener("change", choose);
  slider.addEventListener("input", draw);
  play.addEventListener("click", toggle);
  choose();
  slider.value = Math.floor(last() / 2);
  draw();
}
