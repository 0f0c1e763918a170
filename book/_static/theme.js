// Plotly figures follow the page's light or dark mode; their own template is made for the light one.
(() => {
  const colours = { light: ["#3B434C", "#FFFFFF"], dark: ["#CED6DD", "#1D2226"] };

  function restyle() {
    const [ink, paper] = colours[document.documentElement.dataset.theme === "dark" ? "dark" : "light"];
    const update = { "font.color": ink, "hoverlabel.bgcolor": paper, "hoverlabel.font.color": ink };
    for (const plot of document.querySelectorAll(".js-plotly-plot")) window.Plotly?.relayout(plot, update);
  }

  window.addEventListener("load", () => {
    if (document.documentElement.dataset.theme === "dark") restyle();
    new MutationObserver(restyle).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  });
})();
