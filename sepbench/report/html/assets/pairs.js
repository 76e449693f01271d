// Any two methods on the same mixtures: fills the two charts and the line of words. Every number comes from the page's data.
(function () {
  "use strict";
  function bins(low, high, counts, method) {
    const step = (high - low) / counts.length;
    return counts.map(function (count, i) { return { low: low + i * step, high: low + (i + 1) * step, count: count, method: method }; });
  }

  for (const block of document.querySelectorAll("[data-pair]")) {
    const name = block.dataset.pair.replace(/-pairs$/, "");
    const data = JSON.parse(document.getElementById(block.dataset.pair).textContent);
    const first = block.querySelector("[data-first]"), second = block.querySelector("[data-second]"), told = block.querySelector("[data-told]");
    for (const method of data.methods) {
      first.append(new Option(method, method));
      second.append(new Option(method, method));
    }

    function show() {
      const a = first.value, b = second.value;
      const pair = data.pairs.find(function (one) { return (one.a === a && one.b === b) || (one.a === b && one.b === a); });
      const edges = data.edges;
      const both = Array.from(new Set([a, b])).flatMap(function (method) { return bins(edges[0], edges[edges.length - 1], data.histograms[method], method); });
      window.sepbenchCharts.data(name + "-both", "pair", both);
      if (!pair) {
        told.textContent = a === b ? "Choose two methods." : "These two were not compared.";
        window.sepbenchCharts.data(name + "-difference", "pair", []);
        window.sepbenchCharts.data(name + "-difference", "interval", []);
        return;
      }
      told.textContent = pair.a + " - " + pair.b + ": " + pair.text;
      window.sepbenchCharts.data(name + "-difference", "pair", bins(pair.edges[0], pair.edges[1], pair.counts, ""));
      window.sepbenchCharts.data(name + "-difference", "interval", [{ mean: pair.mean, low: pair.low, high: pair.high }]);
    }

    first.addEventListener("change", show);
    second.addEventListener("change", show);
    first.value = data.first[0];
    second.value = data.first[data.first.length - 1];
    show();
  }
})();
