// Where require.js finds the widgets' modules: beside this file, never on a CDN.
(() => {
  const here = document.currentScript.src;
  const vendor = (path) => new URL(`vendor/${path}`, here).href;
  requirejs.config({
    paths: {
      anywidget: vendor("anywidget"),
      "@jupyter-widgets": vendor("html-manager"), // icon fonts of the bundled controls
      "@jupyter-widgets/html-manager/dist": vendor("html-manager"),
    },
  });
})();
