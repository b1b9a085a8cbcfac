"use strict";
// A click on a column's name sorts by it: highest first, lowest first, then the paper's order again.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const printed = [...body.rows];
  const heads = [...[...table.tHead.rows].at(-1).cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort; the third click brings back the first order";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { none: "descending", descending: "ascending", ascending: "none" }[head.ariaSort || "none"];
      heads.forEach((each) => { each.ariaSort = null; });
      if (next !== "none") head.ariaSort = next;
      const sign = next === "ascending" ? 1 : -1;
      const key = (row) => {
        const { order } = row.cells[column].dataset;
        return order === undefined ? row.cells[column].textContent : order === "" ? null : Number(order);
      };
      const sorted = next === "none" ? printed : [...printed].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
      });
      body.append(...sorted);
    });
  });
}
