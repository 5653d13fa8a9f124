"use strict";
(() => {
  const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));
  document.documentElement.classList.add("scripted");

  // The table: each arm is a tbody, so that its notes go with it.
  const table = document.querySelector("table.arms");
  const arms = all("tbody.arm", table);
  const inOrder = all("tbody", table);
  const folded = new Set();

  const valueOf = (arm, place) => arm.rows[0].cells[place].dataset.value ?? "";
  const compared = (first, second) => {
    const numbers = [Number(first), Number(second)];
    return numbers.some(Number.isNaN) ? first.localeCompare(second) : numbers[0] - numbers[1];
  };

  function sortBy(header) {
    const next = { none: "ascending", ascending: "descending", descending: "none" }[header.getAttribute("aria-sort")];
    all("th[aria-sort]", table).forEach((each) => each.setAttribute("aria-sort", each === header ? next : "none"));
    const place = Array.from(header.parentNode.children).indexOf(header);
    const sign = next === "descending" ? -1 : 1;
    const sorted = next === "none" ? inOrder : arms.slice().sort((a, b) => {
      const [first, second] = [valueOf(a, place), valueOf(b, place)];
      if (first === "" || second === "") return (first === "") - (second === "");
      return sign * compared(first, second);
    });
    table.append(...sorted);
    showRows(next === "none");
  }

  function showRows(grouped) {
    all("tbody.group", table).forEach((each) => { each.hidden = !grouped; });
    arms.forEach((arm) => { arm.hidden = grouped && folded.has(arm.dataset.group); });
  }

  table.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.sort) { sortBy(button.closest("th")); return; }
    const group = button.dataset.group;
    if (!folded.delete(group)) folded.add(group);
    button.setAttribute("aria-expanded", String(!folded.has(group)));
    showRows(true);
  });

  // Learning curves: those beyond the first dozen wait to be chosen.
  all("input[data-panel]").forEach((box) => {
    const panel = document.querySelector(`figure[data-panel="${box.dataset.panel}"]`);
    const show = () => { panel.hidden = !box.checked; };
    box.addEventListener("change", show);
    show();
  });

  // Classes: the cells are there, and get the numbers of the arm that is chosen.
  const data = document.getElementById("class-data");
  if (data) {
    const rows = JSON.parse(data.textContent);
    const arm = document.getElementById("class-arm");
    const part = document.getElementById("class-part");
    const write = (id, texts) => all(`#${id} tbody tr`).forEach((tr, row) => all("td", tr).forEach((cell, column) => {
      cell.textContent = texts[row]?.[column] ?? "";
    }));
    const show = () => {
      const name = arm.options[arm.selectedIndex].text;
      const shown = document.getElementById("class-shown");
      const names = Array.from(arm.options, (option) => option.text);
      const found = rows.find((row) => row[0] === Number(arm.value) && row[1] === part.value);
      if (!found) {
        shown.textContent = `${names[arm.selectedIndex]} has no figures of these examples.`;
        write("confusion", []);
        write("per-class", []);
        all("#confusion tbody td").forEach((cell) => cell.style.setProperty("--share", 0));
        return;
      }
      const [, , seeds, images, figures] = found;
      const percents = images.map((row) => {
        const total = row.reduce((sum, count) => sum + count, 0);
        return row.map((count) => (total ? 100 * count / total : 0));
      });
      shown.textContent = `${name}, ${part.options[part.selectedIndex].text}, mean over ${seeds}.`;
      write("confusion", percents.map((row) => row.map((value) => (value >= 0.5 ? value.toFixed(0) : ""))));
      all("#confusion tbody tr").forEach((tr, row) => all("td", tr).forEach((cell, column) => {
        cell.style.setProperty("--share", (percents[row]?.[column] ?? 0).toFixed(0));
      }));
      write("per-class", figures);
    };
    arm.addEventListener("change", show);
    part.addEventListener("change", show);
  }

  // Marks in pictures: their titles become a box beside the pointer, or beside the mark that arrow keys reach.
  const tip = document.getElementById("tip");
  const marks = new Map();
  all("svg title").forEach((title) => {
    const mark = title.parentNode;
    if (mark.tagName === "svg") return;
    marks.set(mark, title.textContent);
    title.remove();
  });
  const hide = () => { tip.hidden = true; };
  function showTip(mark, x, y) {
    tip.textContent = marks.get(mark);
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - width - 4))}px`;
    tip.style.top = `${y + 14 + height > innerHeight ? y - height - 10 : y + 14}px`;
  }
  const markAt = (target) => {
    for (let node = target; node && node.tagName !== "svg"; node = node.parentNode) if (marks.has(node)) return node;
    return null;
  };
  document.addEventListener("pointermove", (event) => {
    const mark = event.target instanceof SVGElement ? markAt(event.target) : null;
    if (mark) showTip(mark, event.clientX, event.clientY); else if (!document.querySelector(".chosen")) hide();
  });
  all(".plot").forEach((plot) => {
    const own = all("svg *", plot).filter((node) => marks.has(node));
    if (!own.length) return;
    let place = -1;
    const leave = () => { own[place]?.classList.remove("chosen"); hide(); };
    plot.addEventListener("blur", leave);
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") leave();
      if (!step) return;
      event.preventDefault();
      leave();
      place = place < 0 ? 0 : (place + step + own.length) % own.length;
      own[place].classList.add("chosen");
      const box = own[place].getBoundingClientRect();
      showTip(own[place], box.right, box.bottom);
    });
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // On paper everything is open.
  const opened = new Set();
  addEventListener("beforeprint", () => all("details:not([open])").forEach((each) => {
    opened.add(each);
    each.open = true;
  }));
  addEventListener("afterprint", () => { opened.forEach((each) => { each.open = false; }); opened.clear(); });
})();
