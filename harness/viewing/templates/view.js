// The local page: the list that is searched as one types, the table of items that its server pages, sorts and
// filters, and a run in progress. Texts of data sets and endpoints are put into the page as text.

(() => {
  const { jQuery, element, letter, number, count, itemDetail, verdict, tips } = globalThis.forcedChoice;
  const PAGE = 25; // rows
  const WAIT = 200; // milliseconds after the last key before a search begins

  const markup = (node) => element("div", {}, node).innerHTML;
  const escaped = (text) => markup(element("span", {}, String(text)));
  const later = (work) => {
    let waiting = 0;
    return () => {
      clearTimeout(waiting);
      waiting = setTimeout(work, WAIT);
    };
  };
  async function asked(address) {
    const reply = await fetch(address, { headers: { Accept: "application/json" } });
    const found = await reply.json();
    if (!reply.ok) throw new Error(found.error);
    return found;
  }

  // ---------------------------------------------------------------------------------------------- the list

  function list() {
    const find = document.getElementById("find");
    if (!find) return;
    let last = "";
    find.addEventListener("input", later(async () => {
      const address = `/?${new URLSearchParams(new FormData(find))}`;
      last = address;
      const page = new DOMParser().parseFromString(await (await fetch(address)).text(), "text/html");
      if (address !== last) return; // a newer search is on its way
      document.getElementById("runs").replaceWith(page.getElementById("runs"));
      history.replaceState(null, "", address);
    }));
  }

  // ------------------------------------------------------------------------------------------------- items

  function select(name, options) {
    const chosen = element("select", {}, ...options.map(([value, text]) => element("option", { value }, text)));
    return [chosen, element("label", {}, name, chosen)];
  }

  function columnsOf(labels) {
    const place = (_, kind, row) => {
      const button = element("button", { type: "button", className: "open" }, count(row.index));
      button.setAttribute("aria-expanded", "false");
      button.setAttribute("aria-label", `Open item ${row.index}`);
      return markup(button) + (row.id ? markup(element("span", { className: "id", title: row.id }, row.id)) : "");
    };
    const task = (_, kind, row) =>
      escaped(row.task) + (row.subject ? markup(element("span", { className: "id", title: row.subject }, row.subject)) : "");
    return [
      { title: "item", name: "item", className: "place", render: place },
      { title: "task", name: "task", className: "task", render: task },
      { title: "question", className: "question", orderable: false, render: (_, kind, row) => markup(element("span", { className: "ask" }, row.question)) },
      { title: "right", className: "gold", orderable: false, render: (_, kind, row) => escaped(row.gold.map(letter).join(" ")) },
      ...labels.map((label, at) => ({
        title: escaped(label), name: String(at), className: "end", render: (_, kind, row) => markup(verdict(row.endpoints[at])),
        createdCell: (cell) => cell.setAttribute("data-label", label),
      })),
    ].map((column) => ({ data: null, ...column }));
  }

  async function items() {
    const home = document.getElementById("item-table");
    if (!home) return;
    const labels = JSON.parse(home.dataset.labels);
    const tasks = JSON.parse(home.dataset.tasks);
    let there = {}; // subjects by task, once the server has looked
    const several = labels.length > 1;
    const shows = home.dataset.shows.split("|").filter((each) => several || !/flipped|became/.test(each));
    const [show, showLabel] = select("show", shows.map((each) => [each, each]));
    show.value = shows.includes(home.dataset.show) ? home.dataset.show : shows[0];
    const [on, onLabel] = select("on", [["", "any endpoint"], ...labels.map((label, at) => [String(at), label])]);
    const [task, taskLabel] = select("task", [["", "all tasks"], ...tasks.map((name) => [name, name])]);
    const [subject, subjectLabel] = select("subject", [["", "all subjects"]]);
    const search = element("input", { type: "search", placeholder: "words of the question, id, subject" });
    const searchLabel = element("label", { className: "search" }, "search", search);
    const found = element("p", { className: "found" });
    found.setAttribute("role", "status");
    const table = element("table", { className: "items" });
    table.append(element("caption", { className: "unseen" }, "Items"));
    const controls = element("div", { className: "controls", role: "search" }, searchLabel, showLabel, onLabel, taskLabel, subjectLabel);
    controls.setAttribute("aria-label", "Items to show");
    onLabel.hidden = !several;
    home.append(controls, found, table);

    const subjects = () => {
      const named = task.value ? there[task.value] ?? [] : Object.values(there).flat();
      subject.replaceChildren(
        element("option", { value: "" }, "all subjects"),
        ...[...new Set(named)].map((each) => element("option", { value: each }, each)),
      );
      subjectLabel.hidden = !named.length;
    };
    subjects();

    let newest = 0;
    const shown = jQuery(table).DataTable({
      serverSide: true,
      searching: false,
      columns: columnsOf(labels),
      autoWidth: false,
      pageLength: PAGE,
      order: [],
      layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: "paging" },
      language: { info: "_START_ to _END_", infoEmpty: "", infoFiltered: "", emptyTable: "No item is like this." },
      async ajax(wanted, answer) {
        const turn = (newest += 1);
        const [sorted] = wanted.order;
        const query = new URLSearchParams({
          show: show.value, on: on.value, task: task.value, subject: subject.value, search: search.value,
          sort: sorted?.dir ? sorted.name : "", down: sorted?.dir === "desc" ? "1" : "0",
          start: String(wanted.start), length: String(wanted.length),
        });
        let page;
        try {
          page = await asked(`/items?${home.dataset.with}&${query}`);
        } catch (error) {
          page = { rows: [], matching: 0, items: 0, note: error.message };
        }
        if (turn !== newest) return; // a newer question is on its way
        found.textContent = `${count(page.matching)} of ${count(page.items)} items${page.note ? `. ${page.note}` : ""}`;
        answer({ draw: wanted.draw, data: page.rows, recordsTotal: page.items, recordsFiltered: page.matching });
        home.dataset.ready = "yes";
      },
    });
    task.addEventListener("change", subjects);
    for (const each of [show, on, task, subject]) each.addEventListener("change", () => shown.draw());
    search.addEventListener("input", later(() => shown.draw()));
    table.addEventListener("click", async (event) => {
      const button = event.target.closest("tbody > tr > td button.open");
      const line = event.target.closest("tbody > tr");
      if (!line || (!button && (event.target.closest("td[colspan]") || getSelection().toString()))) return;
      const row = shown.row(line);
      const opener = line.querySelector("button.open");
      if (!opener || !row.data()) return;
      const opens = !row.child.isShown();
      opener.setAttribute("aria-expanded", String(opens));
      if (!opens) {
        row.child.hide();
        return;
      }
      let detail;
      try {
        detail = itemDetail(await asked(`/item?${home.dataset.with}&at=${row.data().at}`));
      } catch (error) {
        detail = element("p", { className: "note" }, error.message);
      }
      row.child(detail).show();
    });
    table.style.minWidth = `${38 + 8.6 * labels.length}rem`;
    try {
      there = (await asked(`/facts?${home.dataset.with}`)).subjects;
      subjects();
      home.dataset.facts = "yes";
    } catch (error) {
      home.append(element("p", { className: "note" }, error.message));
    }
  }

  // ------------------------------------------------------------------------------------------ in progress

  function duration(seconds) {
    if (seconds < 90) return `${Math.round(seconds)} s`;
    const minutes = Math.round(seconds / 60);
    return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  function endpoint(end) {
    const box = element("div", { className: "end" }, element("h3", {}, end.label));
    const share = end.items ? Math.min(1, end.done / end.items) : 0;
    const bar = element("div", { className: "bar", role: "progressbar" });
    bar.setAttribute("aria-label", `Items of ${end.label}`);
    bar.setAttribute("aria-valuemin", "0");
    bar.setAttribute("aria-valuemax", String(end.items));
    bar.setAttribute("aria-valuenow", String(end.done));
    const filled = element("span");
    filled.style.width = `${100 * share}%`;
    bar.append(filled);
    const counts = [
      end.items ? `${count(end.done)} of ${count(end.items)} items` : "not counted yet",
      end.items && `${count(end.requests)} requests sent`,
      end.reused && `${count(end.reused)} answered already`,
      end.rate !== null && `${number(end.rate, 1)} a second`,
      end.in_flight && `${count(end.in_flight)} in flight`,
      end.retries && `${count(end.retries)} retries`,
      end.unscored && `${count(end.unscored)} unscored`,
      end.seconds_left !== null && end.done < end.items && `about ${duration(end.seconds_left)} left`,
    ];
    box.append(bar, element("p", { className: "counts" }, counts.filter(Boolean).join(" · ")));
    for (const said of [end.refused && `Given up: ${end.refused}`, end.problem]) {
      if (said) box.append(element("p", { className: "note" }, said));
    }
    if (end.scores.length) box.append(scores(end));
    return box;
  }

  function scores(end) {
    const head = ["task, metric", "so far", "95 % interval", "items"];
    const body = element("tbody");
    for (const each of end.scores) {
      const interval = each.low === null ? "" : `${number(each.low, 4)}–${number(each.high, 4)}`;
      const cells = [each.value === null ? "–" : number(each.value, 4), interval, count(each.n)];
      body.append(element("tr", {},
        element("th", { scope: "row" }, each.task, element("span", { className: "part" }, each.metric)),
        ...cells.map((text) => element("td", { className: "number" }, text)),
      ));
    }
    const names = head.map((text, at) => element("th", { scope: "col", className: at ? "number" : "" }, text));
    return element("table", {}, element("caption", { className: "unseen" }, `Scores of ${end.label} so far`), element("thead", {}, element("tr", {}, ...names)), body);
  }

  function live() {
    const home = document.getElementById("live");
    if (!home) return;
    const said = home.querySelector(".said");
    const events = new EventSource(home.dataset.events);
    events.addEventListener("message", (event) => {
      const told = JSON.parse(event.data);
      home.querySelector(".ends").replaceChildren(...told.endpoints.map(endpoint));
      for (const each of document.querySelectorAll("header .state")) {
        each.className = `state ${told.state}`;
        each.textContent = told.state;
      }
      if (told.state === "running") said.textContent = `Last sign of life: ${told.at.replace("T", " ").replace("Z", " UTC")}`;
      else if (told.state === "dead") said.textContent = "It gives no sign of life any more: the command that made it continues it.";
      else {
        events.close();
        said.replaceChildren("It has ended. ", element("a", { href: location.pathname }, "Show its tables"));
      }
      home.dataset.ready = "yes";
    });
  }

  list();
  items();
  live();
  tips();
})();
