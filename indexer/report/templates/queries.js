/* Sorts and filters the table of queries; the state is in the URL fragment, so that a view can be passed on. */
(() => {
  "use strict";
  const table = document.getElementById("queries");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const filters = [...document.querySelectorAll("#filters select")];
  const buttons = [...table.querySelectorAll("button[data-sort]")];
  const count = document.getElementById("query-count");
  let sort = "";
  let falling = false;

  const value = (row) => row.dataset[sort] === "" ? NaN : Number(row.dataset[sort]);
  const compare = (one, other) => {
    const [a, b] = [value(one), value(other)];
    /* What has no value stands last, whichever way the rest is sorted. */
    if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);
    return falling ? b - a : a - b;
  };

  function show() {
    const active = filters.filter((filter) => filter.value);
    let visible = 0;
    for (const row of rows) {
      row.hidden = !active.every((filter) => row.dataset[filter.dataset.filter] === filter.value);
      visible += !row.hidden;
    }
    body.append(...(sort ? [...rows].sort(compare) : rows));
    for (const button of buttons) {
      const isActive = button.dataset.sort === sort;
      button.parentElement.setAttribute("aria-sort", isActive ? (falling ? "descending" : "ascending") : "none");
    }
    count.textContent = visible + " of " + rows.length + " queries";
  }

  function read() {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const filter of filters) {
      filter.value = state.get(filter.dataset.filter) || "";
      if (filter.selectedIndex < 0) filter.value = "";
    }
    const name = state.get("sort") || "";
    sort = buttons.some((button) => button.dataset.sort === name) ? name : "";
    falling = state.get("order") === "falling";
    show();
  }

  function write() {
    const state = new URLSearchParams();
    for (const filter of filters) if (filter.value) state.set(filter.dataset.filter, filter.value);
    if (sort) state.set("sort", sort);
    if (sort && falling) state.set("order", "falling");
    history.replaceState(null, "", "#" + state);
    show();
  }

  for (const filter of filters) filter.addEventListener("change", write);
  for (const button of buttons) {
    button.addEventListener("click", () => {
      /* The first click puts the greatest error first, which is what one looks for. */
      falling = sort === button.dataset.sort ? !falling : true;
      sort = button.dataset.sort;
      write();
    });
  }
  window.addEventListener("hashchange", read);
  read();
})();
