// Plots are drawn while the page is still being read, when the column they stand in is wider than it will be.
// Each follows its container from then on: through the end of loading, side bars that open, and turned phones.
(() => {
  const follow = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const plot = target.querySelector(".js-plotly-plot");
      if (plot && window.Plotly && target.clientWidth > 0) window.Plotly.Plots.resize(plot);
    }
  });
  window.addEventListener("load", () => {
    document.querySelectorAll(".js-plotly-plot").forEach((plot) => follow.observe(plot.parentElement));
  });
})();
