// A report: its items out of the page itself, their table, the words of plots under the pointer, and print.

(() => {
  const { jQuery, element, letter, count, itemDetail, verdict, tips } = globalThis.forcedChoice;
  const PAGE = 25; // rows
  const NEAR = 0.1; // nats: a margin within this is nearly a tie
  const FLIPS = ["", "wrong to right", "right to wrong", "wrong to other wrong"];
  const WAIT = 150; // milliseconds after the last key before a search begins

  async function unpacked(id) {
    const text = atob(document.getElementById(id).textContent);
    const bytes = new Uint8Array(text.length);
    for (let at = 0; at < bytes.length; at += 1) bytes[at] = text.charCodeAt(at);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  }

  // ------------------------------------------------------------------------------------------- the columns

  class Items {
    constructor(columns) {
      Object.assign(this, columns);
      this.size = columns.task.length;
      this.blocks = new Map();
      for (const end of this.endpoints) {
        let at = 0; // where an item's sums begin: those without any have none
        end.first = end.unscored.map((why, item) => {
          const here = at;
          if (why === 0) at += this.choices[item];
          return here;
        });
      }
    }

    end(number, item) {
      const end = this.endpoints[number];
      const why = end.unscored[item];
      const first = end.first[item];
      return {
        label: this.labels[number],
        tokenizer: this.tokenizers[number],
        sums: why === 0 ? end.sums.slice(first, first + this.choices[item]) : [],
        value: end.value[item],
        prediction: end.prediction[item],
        margin: end.margin[item],
        unscored: why < 0 ? null : this.reasons[why],
        flip: end.flip.length ? FLIPS[end.flip[item]] : "",
      };
    }

    // What a search looks at. It is put together once it is asked for: most people never search.
    searched(item) {
      this.searchable ??= this.task.map((task, each) => [
        this.tasks[task], this.subjects[this.subject[each]], this.index[each], this.id[each],
        this.question.length ? this.question[each] : "",
      ].join(" ").toLowerCase());
      return this.searchable[item];
    }

    golds(item) {
      return [this.gold[item]].flat();
    }

    async whole(item) {
      const where = this.documents.length && this.documents[item] ? this.documents[item] : [];
      const documents = [];
      for (const [block, position] of where) documents.push((await this.block(block))[position]);
      return {
        task: this.tasks[this.task[item]],
        subject: this.subjects[this.subject[item]],
        shots: this.shots[item],
        index: this.index[item],
        id: this.id[item],
        gold: this.golds(item),
        choices: this.choices[item],
        endpoints: this.endpoints.map((_, number) => this.end(number, item)),
        documents,
      };
    }

    block(number) {
      if (!this.blocks.has(number)) this.blocks.set(number, unpacked(`items-${number}`));
      return this.blocks.get(number);
    }
  }

  const KINDS = {
    "all items": () => true,
    wrong: (end, item) => end.unscored[item] === 0 && end.value[item] !== null && end.value[item] < 0.5,
    right: (end, item) => end.unscored[item] === 0 && end.value[item] >= 0.5,
    flipped: (end, item) => end.flip.length > 0 && end.flip[item] > 0,
    "became right": (end, item) => end.flip.length > 0 && end.flip[item] === 1,
    "became wrong": (end, item) => end.flip.length > 0 && end.flip[item] === 2,
    "nearly a tie": (end, item) => end.margin[item] !== null && Math.abs(end.margin[item]) < NEAR,
    unscored: (end, item) => end.unscored[item] > 0,
  };

  // --------------------------------------------------------------------------------------------- the table

  const escaped = (text) => jQuery.fn.dataTable.util.escapeHtml(String(text));
  const markup = (node) => element("div", {}, node).innerHTML;

  function columnsOf(items) {
    const plain = (value) => (_, kind, row) => (kind === "display" ? escaped(value(row.i)) : value(row.i));
    const place = (_, kind, { i }) => {
      if (kind !== "display") return items.index[i];
      const button = element("button", { type: "button", className: "open" }, count(items.index[i]));
      button.setAttribute("aria-expanded", "false");
      button.setAttribute("aria-label", `Open item ${items.index[i]}`);
      const id = items.id[i] ? element("span", { className: "id", title: items.id[i] }, items.id[i]) : "";
      return markup(button) + (id ? markup(id) : "");
    };
    const task = (_, kind, { i }) => {
      const [name, subject] = [items.tasks[items.task[i]], items.subjects[items.subject[i]]];
      if (kind !== "display") return `${name} ${subject}`;
      return escaped(name) + (subject ? markup(element("span", { className: "id", title: subject }, subject)) : "");
    };
    const asked = (i) => element("span", { className: "ask" }, question(i));
    const question = (i) => (items.question.length ? items.question[i] : "");
    const end = (position) => (_, kind, { i }) => {
      if (kind === "display") return markup(verdict(items.end(position, i)));
      const margin = items.endpoints[position].margin[i];
      return margin === null ? -1e9 : margin;
    };
    return [
      { title: "item", className: "place", render: place, type: "num" },
      { title: "task", className: "task", render: task, type: "string" },
      { title: "question", className: "question", render: (_, kind, { i }) => (kind === "display" ? markup(asked(i)) : question(i)), type: "string" },
      { title: "right", className: "gold", render: plain((i) => items.golds(i).map(letter).join(" ")), type: "string" },
      ...items.labels.map((label, position) => ({
        title: escaped(label), className: "end", render: end(position), type: "num",
        createdCell: (cell) => cell.setAttribute("data-label", label),
      })),
    ].map((column) => ({ data: null, searchable: false, ...column }));
  }

  function select(name, options) {
    const chosen = element("select", {}, ...options.map(([value, text]) => element("option", { value }, text)));
    return [chosen, element("label", {}, name, chosen)];
  }

  function build(items) {
    const home = document.getElementById("item-table");
    const several = items.labels.length > 1;
    const kinds = Object.keys(KINDS).filter((kind) => several || !/flipped|became/.test(kind));
    const [kind, kindLabel] = select("show", kinds.map((each) => [each, each]));
    const ends = [["", "any endpoint"], ...items.labels.map((label, number) => [String(number), label])];
    const [end, endLabel] = select("on", ends);
    const [task, taskLabel] = select("task", [["", "all tasks"], ...items.tasks.map((name, at) => [String(at), name])]);
    const [subject, subjectLabel] = select("subject", [["", "all subjects"]]);
    const search = element("input", { type: "search", placeholder: "words of the question, id, subject" });
    const searchLabel = element("label", { className: "search" }, "search", search);
    const found = element("p", { className: "found" });
    found.setAttribute("role", "status");
    const table = element("table", { className: "items" });
    table.append(element("caption", { className: "unseen" }, "Items"));
    const controls = element("div", { className: "controls", role: "search" }, searchLabel, kindLabel, endLabel, taskLabel, subjectLabel);
    controls.setAttribute("aria-label", "Items to show");
    if (!several) endLabel.hidden = true;
    home.append(controls, found, table);

    let words = [];
    const shows = (item) => {
      if (task.value && items.task[item] !== Number(task.value)) return false;
      if (subject.value && items.subject[item] !== Number(subject.value)) return false;
      if (!words.every((word) => items.searched(item).includes(word))) return false;
      const test = KINDS[kind.value];
      return end.value ? test(items.endpoints[Number(end.value)], item) : items.endpoints.some((each) => test(each, item));
    };
    const data = Array.from({ length: items.size }, (_, i) => ({ i }));
    const shown = jQuery(table).DataTable({
      data,
      columns: columnsOf(items),
      autoWidth: false, // which would look at every row for the longest text
      pageLength: PAGE,
      order: [],
      layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: "paging" },
      language: { info: "_START_ to _END_", infoEmpty: "", infoFiltered: "", emptyTable: "No items.", zeroRecords: "No item is like this." },
      drawCallback() {
        const said = this.api().page.info();
        found.textContent = `${count(said.recordsDisplay)} of ${count(said.recordsTotal)} items`;
      },
    });
    shown.search.fixed("shown", (_text, row) => shows(row.i));

    const subjects = () => {
      const there = new Set();
      items.task.forEach((each, item) => {
        if (!task.value || each === Number(task.value)) there.add(items.subject[item]);
      });
      const named = [...there].filter((each) => items.subjects[each]).sort((a, b) => (items.subjects[a] < items.subjects[b] ? -1 : 1));
      subject.replaceChildren(
        element("option", { value: "" }, "all subjects"),
        ...named.map((each) => element("option", { value: String(each) }, items.subjects[each])),
      );
      subjectLabel.hidden = !named.length;
    };
    subjects();
    task.addEventListener("change", subjects);
    for (const each of [kind, end, task, subject]) each.addEventListener("change", () => shown.draw());
    let waiting = 0;
    search.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
        shown.draw();
      }, WAIT);
    });
    table.addEventListener("click", async (event) => {
      const button = event.target.closest("tbody > tr > td button.open");
      const line = event.target.closest("tbody > tr");
      if (!line || (!button && (event.target.closest("td[colspan]") || getSelection().toString()))) return;
      const row = shown.row(line);
      const opener = line.querySelector("button.open");
      if (!opener || !row.data()) return;
      const opens = !row.child.isShown();
      opener.setAttribute("aria-expanded", String(opens));
      if (!opens) row.child.hide();
      else row.child(itemDetail(await items.whole(row.data().i))).show();
    });
    // Endpoints are many or few: questions keep their room, and the table scrolls.
    table.style.minWidth = `${38 + 8.6 * items.labels.length}rem`;
    home.dataset.ready = "yes";
  }

  // ------------------------------------------------------------------------------------------------ printing

  // Whoever prints wants to read what is folded up.
  function printing() {
    let folded = [];
    addEventListener("beforeprint", () => {
      folded = [...document.querySelectorAll("details:not([open])")];
      for (const each of folded) each.open = true;
    });
    addEventListener("afterprint", () => {
      for (const each of folded) each.open = false;
    });
  }

  tips();
  printing();
  if (document.getElementById("items-columns")) unpacked("items-columns").then((columns) => build(new Items(columns)));
})();
