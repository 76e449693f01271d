// Draws the charts of the page when they come into view; sets what tables, selects and the theme say.
(function () {
  "use strict";
  const views = new Map();
  const specs = new Map();
  const wanted = new Map(); // id -> what was set before the chart was drawn
  window.sepbenchCharts = { set: set, data: data, views: views };

  function style(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function config(width) {
    const text = style("--text"), faint = style("--faint"), line = style("--line");
    return {
      background: "transparent",
      font: style("--font"),
      axis: { labelColor: text, titleColor: text, gridColor: line, domainColor: faint, tickColor: faint, titleFontWeight: "normal", labelFontSize: 11 },
      legend: { labelColor: text, titleColor: text, columns: Math.max(2, Math.floor(width / 170)), labelLimit: width < 560 ? 100 : 170 },
      title: { color: text, fontWeight: "normal" },
      header: { labelColor: text, titleColor: text, labelFontWeight: "normal" },
      text: { color: text },
      view: { stroke: "transparent" }
    };
  }

  function draw(element) {
    const id = element.id;
    if (!specs.has(id)) {
      specs.set(id, JSON.parse(document.querySelector('[data-spec="' + CSS.escape(id) + '"]').textContent));
    }
    element.dataset.drawn = "yes";
    // ast: expressions are interpreted, never compiled, so that the page's policy may forbid eval.
    const options = { actions: false, renderer: "svg", ast: true, logLevel: 1, config: config(element.clientWidth), tooltip: { theme: document.documentElement.dataset.theme } };
    return window.vegaEmbed(element, asked(id), options).then(function (result) {
      const old = views.get(id);
      if (old) { old.finalize(); }
      views.set(id, result.view);
    }).catch(function (error) {
      element.textContent = "This chart cannot be drawn: " + error.message;
      console.error(error);
    });
  }

  // The specification with what was set meanwhile.
  function asked(id) {
    const spec = Object.assign({}, specs.get(id)), settings = wanted.get(id) || {};
    const signals = settings.signals || {};
    spec.params = (spec.params || []).map(function (one) { return one.name in signals ? Object.assign({}, one, { value: signals[one.name] }) : one; });
    if (settings.data) { spec.datasets = Object.assign({}, spec.datasets, settings.data); }
    return spec;
  }

  function remember(id, kind, name, value) {
    const settings = wanted.get(id) || {};
    settings[kind] = Object.assign(settings[kind] || {}, { [name]: value });
    wanted.set(id, settings);
  }

  function set(id, name, value) {
    remember(id, "signals", name, value);
    const view = views.get(id);
    if (view) {
      try { view.signal(name, value).resize().runAsync(); } catch (error) { return; } // a chart without this parameter
    }
  }

  function data(id, name, rows) {
    remember(id, "data", name, rows);
    const view = views.get(id);
    if (view) { view.data(name, rows).runAsync(); }
  }

  const all = Array.from(document.querySelectorAll("[data-chart]"));
  const seen = new IntersectionObserver(function (entries) {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        seen.unobserve(entry.target);
        if (!entry.target.dataset.drawn) { draw(entry.target); }
      }
    }
  }, { rootMargin: "300px" });
  all.forEach(function (element) { seen.observe(element); });

  document.addEventListener("sepbench:theme", function () {
    all.filter(function (element) { return element.dataset.drawn; }).forEach(draw);
  });
  addEventListener("beforeprint", function () {
    document.querySelectorAll("img[loading=lazy]").forEach(function (image) { image.loading = "eager"; });
    all.filter(function (element) { return !element.dataset.drawn; }).forEach(draw);
  });
  for (const select of document.querySelectorAll("[data-group-of]")) {
    select.addEventListener("change", function () { set(select.dataset.groupOf, "group", select.value); });
  }
})();
