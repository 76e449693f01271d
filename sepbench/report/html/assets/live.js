// While a run goes on: asks for the report's stamp, and loads the page again when it is another.
(function () {
  "use strict";
  let first = null;
  function ask() {
    fetch("report.json", { cache: "no-store" }).then(function (answer) { return answer.json(); }).then(function (report) {
      if (first !== null && report.stamp !== first) { location.reload(); }
      first = report.stamp;
    }).catch(function () { return null; }).finally(function () { setTimeout(ask, 5000); });
  }
  ask();
})();
