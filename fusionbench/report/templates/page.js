"use strict";
const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (tag, text = "", kind = "") => Object.assign(document.createElement(tag), {textContent: text, className: kind});
// Numbers are packed: JSON, gzip, base64.
const unpacked = async text => {
  const bytes = Uint8Array.from(atob(text), sign => sign.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
};
const named = JSON.parse(one("#columns")?.textContent ?? "{}");  // column -> what it says
const cell = (text, kind = "") => make("td", text, kind);
const copied = button => navigator.clipboard?.writeText(button.dataset.command ?? button.nextElementSibling.textContent)
  .then(() => { button.textContent = "copied"; setTimeout(() => { button.textContent = "copy"; }, 1500); }, () => {});
document.addEventListener("click", event => event.target.classList.contains("copy") && copied(event.target));

// The leaderboard: filter, sort, choose columns, download, copy a command.
function leaderboard(article, data) {
  const table = one("table.board", article);
  const filter = one("input[type=search]", article), only = one(".only", article), count = one(".count", article);
  const columns = data.columns, indexes = columns.map((_, index) => index);
  let shown = new Set(), sorted = null, down = false;

  const values = (row, index) => row.raw[index] || columns[index].keys.map((_, at) => at ? "" : row.text[index].replace(/^(-|n\/a)$/, ""));
  const command = row => row.anchor && document.getElementById(`${article.id}-${row.anchor}`)?.querySelector("code").textContent;

  const rows = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = data.rows.filter(row => (!only.checked || row.kind === "ranked")
      && words.every(word => row.text.some(text => text.toLowerCase().includes(word))));
    if (sorted === null) return kept;
    const key = row => values(row, sorted)[0];
    const order = (a, b) => {
      const x = key(a), y = key(b);
      if (x === "" || y === "") return (x === "") - (y === "");  // what is undefined stands last either way
      const by = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
      return down ? -by : by;
    };
    const late = row => row.kind === "unranked";  // incomplete rows stay last
    return kept.sort((a, b) => late(a) - late(b) || order(a, b));
  };

  const heading = index => {
    const column = columns[index], head = make("th", "", column.name === "fuser" ? "stick" : "");
    const button = make("button", column.name.replaceAll(":", ":\u200b"));
    head.scope = "col";
    head.title = named[column.name];
    if (sorted === index) head.setAttribute("aria-sort", down ? "descending" : "ascending");
    button.addEventListener("click", () => {
      down = sorted === index ? !down : column.up;
      sorted = index;
      draw();
      one(`th[data-column="${index}"] button`, table).focus({preventScroll: true});
    });
    head.dataset.column = index;
    head.append(button);
    return head;
  };

  const line = row => {
    const found = make("tr", "", row.kind + (row.top ? " top" : ""));
    for (const index of indexes.filter(index => shown.has(index))) {
      if (columns[index].name !== "fuser") { found.append(cell(row.text[index])); continue; }
      const head = make("th", row.anchor ? "" : row.text[index], "stick");
      head.scope = "row";
      if (row.anchor) head.append(Object.assign(make("a", row.text[index]), {href: `#${article.id}-${row.anchor}`}));
      found.append(head);
    }
    const last = cell(""), button = make("button", "copy", "copy");
    if (command(row)) {
      button.title = button.dataset.command = command(row);
      button.setAttribute("aria-label", `copy the command of ${row.text[columns.findIndex(c => c.name === "fuser")]}`);
      last.append(button);
    }
    found.append(last);
    return found;
  };

  const draw = () => {
    const kept = rows(), head = make("tr");
    head.append(...indexes.filter(index => shown.has(index)).map(heading), make("th", "command"));
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren(...kept.map(line));
    count.textContent = kept.length === data.rows.length ? "" : `${kept.length} of ${data.rows.length} rows`;
  };

  const boxes = indexes.map(index => {
    const label = make("label"), box = Object.assign(make("input"), {type: "checkbox", value: columns[index].name});
    label.title = named[columns[index].name];
    label.append(box, ` ${columns[index].name}`);
    box.disabled = columns[index].name === "fuser";
    box.addEventListener("change", () => {
      box.checked ? shown.add(index) : shown.delete(index);
      pressed("");
      draw();
    });
    one(".choose", article).append(label);
    return box;
  });
  const buttons = all("button[data-view]", article);
  const pressed = name => buttons.forEach(button => button.setAttribute("aria-pressed", button.dataset.view === name));
  const view = name => {
    shown = new Set(indexes.filter(index => name === "all" || ["summary", name].includes(columns[index].group)));
    boxes.forEach((box, index) => { box.checked = shown.has(index); });
    pressed(name);
    draw();
  };
  buttons.forEach(button => button.addEventListener("click", () => view(button.dataset.view)));
  filter.addEventListener("input", draw);
  only.addEventListener("change", draw);

  // What is shown, with numbers as they are: the columns are those of `fusionbench leaderboard --format csv`.
  const csv = () => {
    const quoted = value => /[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value);
    const chosen = indexes.filter(index => shown.has(index));
    const heads = [...data.head, ...chosen.flatMap(index => columns[index].keys)];
    const lines = rows().map(row => [...row.head, ...chosen.flatMap(index => values(row, index))]);
    return [heads, ...lines].map(values => values.map(quoted).join(",") + "\n").join("");
  };
  one(".csv", article).addEventListener("click", () => {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([csv()], {type: "text/csv"}));
    link.download = `${article.id}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  view("summary");

  // Values under the pointer, and the order under one corruption, come from the same table.
  const at = name => columns.findIndex(column => column.name === name);
  all(".dot[data-row]", article).forEach(dot => {
    const of = dot.closest("[data-of]").dataset.of.split(" ");
    dot.addEventListener("pointerenter", event => {
      const row = data.rows[dot.dataset.row], said = of.map(name => `${name} ${row.text[at(name)]}`);
      tell(`${row.text[at("fuser")]}: ${said.join(", ")}`, event.clientX, event.clientY);
    });
    dot.addEventListener("pointerleave", () => tell("", 0, 0));
  });
  one(".corruptions", article)?.addEventListener("toggle", event => all("[data-kind]", event.currentTarget).forEach(part => {
    const kind = part.dataset.kind, score = at(kind), place = at(kind === "damaged" ? "place" : `place:${kind}`);
    const known = data.rows.filter(row => row.kind === "ranked" && values(row, score)[0] !== "");
    known.sort((a, b) => (columns[score].up ? -1 : 1) * (values(a, score)[0] - values(b, score)[0]));
    const list = make("table", "", "wide"), body = make("tbody"), head = make("tr");
    head.append(make("th", "place"), make("th", "score"), make("th", "fuser", "left"));
    body.append(...known.map(row => {
      const line = make("tr");
      line.append(cell(place < 0 ? "-" : row.text[place]), cell(row.text[score]), cell(row.text[at("fuser")], "left"));
      return line;
    }));
    list.append(make("thead"), body);
    list.tHead.append(head);
    one(".scroll", part).replaceChildren(list);
  }));
}

// Values under the pointer: what an element says of itself, or the nearest line of a panel of curves.
const tip = make("div");
tip.id = "tip";
tip.hidden = true;
tip.setAttribute("role", "status");
document.body.append(tip);
const tell = (text, x, y) => {
  tip.hidden = !text;
  tip.textContent = text;
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 18}px`;
};
const spelled = (scores, value) => value == null ? "-" : scores.percent ? (100 * value).toFixed(1) : value.toFixed(3);

function curves(panel, scores) {
  const lines = all("polyline", panel), points = lines.map(line => [...line.points]);
  const conditions = scores.damage.filter(([, family]) => family === panel.dataset.family).map(([name]) => scores.conditions.indexOf(name));
  let level = 0, at = 0;
  const show = (x, y) => {
    lines.forEach((line, index) => line.classList.toggle("on", index === at));
    const row = scores.rows[lines[at].dataset.row], value = level ? row.scores[conditions[level - 1]] : row.clean;
    tell(`${row.label}, ${level ? `severity ${level}` : "clean"}: ${spelled(scores, value)}`, x, y);
  };
  const hide = () => { lines.forEach(line => line.classList.remove("on")); tell("", 0, 0); };
  const nearest = (list, far) => list.reduce((best, item, index) => far(item) < far(list[best]) ? index : best, 0);
  panel.addEventListener("pointermove", event => {
    const box = panel.getBoundingClientRect(), scale = panel.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    level = nearest(points[0], point => Math.abs(point.x - x));
    at = nearest(points, list => Math.abs(list[level].y - y));
    show(event.clientX, event.clientY);
  });
  panel.addEventListener("pointerleave", hide);
  panel.addEventListener("blur", hide);
  panel.addEventListener("keydown", event => {
    const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (!step) return;
    event.preventDefault();
    level = Math.max(0, Math.min(points[0].length - 1, level + step[0]));
    const order = lines.map((_, index) => index).sort((a, b) => points[a][level].y - points[b][level].y);
    at = order[Math.max(0, Math.min(order.length - 1, order.indexOf(at) + step[1]))];
    const box = panel.getBoundingClientRect(), scale = box.width / panel.viewBox.baseVal.width;
    show(box.left + points[at][level].x * scale, box.top + points[at][level].y * scale);
  });
}
document.addEventListener("pointerover", event => {
  const said = event.target.dataset?.tip;
  if (said) tell(said, event.clientX, event.clientY);
});
document.addEventListener("pointerout", event => event.target.dataset?.tip && tell("", 0, 0));

// Every number behind the curves, made when it is asked for.
function numbers(details, scores) {
  details.addEventListener("toggle", () => {
    if (one("table", details)) return;
    const table = make("table"), head = make("tr"), body = make("tbody");
    head.append(make("th", "fuser", "stick"), ...["clean", ...scores.conditions].map(name => make("th", name.replaceAll(":", ":\u200b"))));
    for (const row of scores.rows) {
      const line = make("tr");
      line.append(make("th", row.label, "stick"), ...[row.clean, ...row.scores].map(value => cell(spelled(scores, value))));
      body.append(line);
    }
    table.append(make("thead"), body);
    table.tHead.append(head);
    one(".scroll", details).append(table);
  });
}

// Which row is best for the damage that is ticked; and what is left if every other sensor is switched off.
function sensors(form, scores) {
  const mean = list => list.reduce((a, b) => a + b, 0) / list.length;
  const answer = () => {
    const top = +one("select", form).value, chosen = all("input:checked", form).map(input => input.value);
    const of = row => mean(chosen.map(name => mean(scores.damage.filter(([, family, level]) => family === name && level <= top)
      .map(([condition]) => row.scores[scores.conditions.indexOf(condition)] ?? NaN))));
    const rows = scores.rows.map(row => ({label: row.alone ? `only ${row.alone}` : row.label, alone: row.alone,
      value: chosen.length ? of(row) : row.clean ?? NaN})).filter(row => !isNaN(row.value));
    rows.sort((a, b) => scores.up ? b.value - a.value : a.value - b.value);
    const most = Math.max(...rows.map(row => Math.abs(row.value)));
    const best = new Set(rows.filter(row => !row.alone).slice(0, 5));
    one("tbody", form).replaceChildren(...rows.filter(row => row.alone || best.has(row)).map(row => {
      const line = make("tr"), bar = make("span", "", "meter"), last = cell("", "left");
      bar.style.width = `${Math.round(100 * Math.abs(row.value) / most)}px`;
      last.append(bar);
      line.append(cell(row.label, "left"), cell(spelled(scores, row.value)), last);
      return line;
    }));
  };
  form.addEventListener("change", answer);
  answer();
}

// What made a row: its settings, those that are not the default in bold, and its runs.
function settings(part, {settings, made, runs}) {
  part.addEventListener("toggle", () => {
    if (!part.open || one(".settings", part)) return;
    const words = make("p", "", "settings"), list = make("details"), ids = make("div", runs.join(" "), "settings runs");
    for (const [name, value, changed] of settings) words.append(make(changed ? "b" : "span", `${name}=${value}`), " ");
    for (const [name, value] of Object.entries(made)) words.append(make("span", `${name}: ${value}`), " ");
    list.append(make("summary", `${runs.length} runs`), ids);
    part.append(words, list);
  });
}

const open = () => {
  const found = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let part = found; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  if (found) found.scrollIntoView();
};
addEventListener("hashchange", open);
const start = async article => {
  const {table, scores, details} = await unpacked(one("script.data", article).textContent);
  leaderboard(article, table);
  all("svg.curves", article).forEach(panel => curves(panel, scores));
  all("details.numbers", article).forEach(part => numbers(part, scores));
  all(".sensors", article).forEach(form => sensors(form, scores));
  for (const [anchor, made] of Object.entries(details)) settings(document.getElementById(`${article.id}-${anchor}`), made);
};
Promise.all(all(".benchmark").map(start)).then(() => {
  open();
  document.body.dataset.ready = "yes";
});
