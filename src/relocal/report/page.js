"use strict";
// A press on a header sorts its table by that column, and a second press the other way round.
// Cells with an empty data-value have no answer, and stay last both ways.
const names = new Intl.Collator("en", { numeric: true });
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const header = button.closest("th");
    const body = header.closest("table").tBodies[0];
    const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const value = (row) => {
      const cell = row.cells[header.cellIndex];
      return cell.dataset.value ?? cell.textContent;
    };
    const numeric = [...body.rows].some((row) => "value" in row.cells[header.cellIndex].dataset);
    const compare = (a, b) => {
      if (a[0] === "" || b[0] === "") return (a[0] === "") - (b[0] === "");
      return sign * (numeric ? a[0] - b[0] : names.compare(a[0], b[0]));
    };
    const rows = [...body.rows].map((row) => [value(row), row]).sort(compare);
    for (const other of header.parentElement.cells) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    body.replaceChildren(...rows.map(([, row]) => row));
  });
}
