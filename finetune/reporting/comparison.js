"use strict";
{
// Samples: filtered, in order, twenty on a page.
const samples = JSON.parse(document.getElementById("samples").textContent);
const PAGE = 20, control = id => document.getElementById(id);
const make = (tag, name, ...children) => {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children);
  return element;
};
const said = (row, model) => row[3][model] === 0 ? row[2] : row[3][model];

function spansShown(words, gold, spans) {
  const same = (a, b) => a[0] === b[0] && a[1] === b[1] && a[2] === b[2];
  const chip = (name, span) => make("span", "chip " + name, words.slice(span[0], span[1]).join(" "), make("small", "", span[2]));
  return [
    ...spans.filter(span => !samples.every_word || !gold.some(one => same(one, span)))
      .map(span => chip(gold.some(one => same(one, span)) ? "right" : "wrong", span)),
    ...gold.filter(span => !samples.every_word && !spans.some(one => same(one, span))).map(span => chip("missed", span)),
  ];
}

function textShown(row) {
  const number = make("small", "", String(row[0]));
  if (!samples.tagged) return make("div", "", number, row[1] + " ", make("mark", "", row[2]));
  const line = make("div", "", number);
  let at = 0;
  for (const [begin, end, kind] of [...row[2]].sort((a, b) => a[0] - b[0])) {
    line.append(row[1].slice(at, begin).join(" ") + " ", make("mark", "", row[1].slice(begin, end).join(" "), make("small", "", kind)), " ");
    at = end;
  }
  line.append(row[1].slice(at).join(" "));
  return line;
}

function sampleShown(row) {
  const list = make("dl", "");
  samples.models.forEach((name, model) => {
    const answer = said(row, model), kind = row[5][model] ? "wrong" : "right";
    const confidence = row[4][model] === null ? [] : [make("small", "", row[4][model].toFixed(3))];
    const shown = samples.tagged ? spansShown(row[1], row[2], answer)
      : [make("span", "chip " + kind, answer === "" ? "(nothing)" : answer, ...confidence)];
    list.append(make("dt", "", name), make("dd", "", ...(shown.length ? shown : [make("span", "chip right", "")])));
  });
  return make("div", "sample", textShown(row), list);
}

const searched = samples.rows.map(row => JSON.stringify([samples.tagged ? row[1].join(" ") : row[1], row[2], row[3]]).toLowerCase());
let page = 0, found = [];
function chosen() {
  const text = control("find").value.toLowerCase(), kind = control("kind").value;
  const wrong = control("wrong").value, right = control("right").value;
  const number = name => samples.models.indexOf(name);
  const rows = samples.rows.filter((row, at) => {
    const some = flags => flags.some(Boolean);
    if (!searched[at].includes(text)) return false;
    if (wrong && !(wrong === "*" ? some(row[5]) : row[5][number(wrong)])) return false;
    if (right && (right === "*" ? some(row[5]) : row[5][number(right)])) return false;
    const kinds = wrong && wrong !== "*" ? [row[6][number(wrong)]] : row[6];
    return !kind || kinds.some(own => own.includes(Number(kind)));
  });
  return control("order").value === "file" ? rows.sort((a, b) => a[0] - b[0]) : rows;
}
function show() {
  const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
  page = Math.min(Math.max(page, 0), last);
  control("page").replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(sampleShown));
  control("shown").textContent = `${found.length} of ${samples.rows.length}`;
  for (const [id, off] of [["first", !page], ["before", !page], ["after", page === last], ["last", page === last]])
    for (const button of document.querySelectorAll("." + id)) button.disabled = off;
  for (const place of document.querySelectorAll(".place")) place.textContent = `page ${page + 1} of ${last + 1}`;
}
function filter() {
  found = chosen();
  page = 0;
  show();
}
const go = (name, to) => {
  for (const button of document.querySelectorAll("." + name)) button.addEventListener("click", () => { page = to(); show(); });
};
go("first", () => 0);
go("before", () => page - 1);
go("after", () => page + 1);
go("last", () => Infinity);
for (const id of ["find", "wrong", "right", "kind", "order"]) control(id).addEventListener("input", filter);
samples.kinds.forEach(([name, number], at) => control("kind").append(new Option(`${name} (${number})`, at)));
control("kind").parentElement.hidden = !samples.kinds.length;
filter();
}
