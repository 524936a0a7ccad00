// Draws the charts of a page from the blocks of data beside them.
"use strict";

(() => {
  const HEIGHT = 220;
  const FONT = "12px system-ui, sans-serif";
  const days = { day: "numeric", month: "short", timeZone: "UTC" };
  const utcDay = new Intl.DateTimeFormat("en-GB", days);
  const localDay = new Intl.DateTimeFormat("en-GB", { ...days, timeZone: undefined });
  const drawn = [];

  const colour = (tone) =>
    getComputedStyle(document.documentElement).getPropertyValue(`--tone-${tone}`).trim();

  const plain = (value) =>
    value.toLocaleString("en", { maximumFractionDigits: Math.abs(value) < 10 ? 2 : 0 })
      .replace("-", "−");

  const forms = {
    number: plain,
    power: plain,
    percent: (value) => `${plain(100 * value)} %`,
  };

  // Bars that stand on each other are drawn as their sums, the greatest first.
  const stacked = (series) => {
    const sums = [];
    series.forEach((one, at) => {
      sums.push(one.values.map((value, x) => (value ?? 0) + (at ? sums[at - 1][x] : 0)));
    });
    return sums;
  };

  const dashed = (plot, from, to, tone) => {
    const { ctx } = plot;
    ctx.save();
    ctx.strokeStyle = colour(tone);
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(...from);
    ctx.lineTo(...to);
    ctx.stroke();
    ctx.restore();
  };

  const across = (chart) => (plot) => {
    const { left, width, top, height } = plot.bbox;
    for (const line of chart.lines) {
      const y = plot.valToPos(line.at, "y", true);
      if (y >= top && y <= top + height) dashed(plot, [left, y], [left + width, y], line.tone);
    }
    const { ctx } = plot;
    let row = 0;
    for (const mark of chart.marks) {
      const x = plot.valToPos(mark.at, "x", true);
      dashed(plot, [x, top], [x, top + height], mark.tone);
      ctx.save();
      ctx.fillStyle = colour("muted");
      ctx.font = FONT.replace("12px", `${11 * devicePixelRatio}px`);
      const room = ctx.measureText(mark.label).width + 6 * devicePixelRatio;
      const right = x + room > left + width;
      ctx.textAlign = right ? "right" : "left";
      ctx.textBaseline = "top";
      const shift = (right ? -4 : 4) * devicePixelRatio;
      ctx.fillText(mark.label, x + shift, top + (2 + 14 * row) * devicePixelRatio);
      ctx.restore();
      row += 1;
    }
  };

  const ranges = (chart) => (plot) => {
    chart.series.forEach((one) => {
      if (one.kind !== "range") return;
      const { ctx } = plot;
      ctx.save();
      ctx.strokeStyle = colour(one.tone);
      ctx.lineCap = "round";
      ctx.lineWidth = Math.max(1.5, Math.min(4, 240 / chart.x.length)) * devicePixelRatio;
      one.values.forEach((low, at) => {
        if (low === null) return;
        const x = plot.valToPos(chart.x[at], "x", true);
        ctx.beginPath();
        ctx.moveTo(x, plot.valToPos(low, "y", true));
        ctx.lineTo(x, plot.valToPos(one.high[at], "y", true));
        ctx.stroke();
      });
      ctx.restore();
    });
  };

  const series = (chart, one) => {
    const tone = colour(one.tone);
    const base = { label: one.label, stroke: tone, width: 1.75, points: { show: false } };
    if (one.kind === "bar") {
      const size = [chart.axis === "number" ? 0.96 : 0.8, 64];
      return { ...base, fill: tone, width: 0, paths: uPlot.paths.bars({ size, gap: 1 }) };
    }
    if (one.kind === "step") return { ...base, paths: uPlot.paths.stepped({ align: 1 }) };
    if (one.kind === "dots") {
      return { ...base, width: 0, points: { show: true, size: 6, fill: tone, stroke: tone } };
    }
    if (one.kind === "line") return { ...base, spanGaps: true };
    if (one.kind === "range") return { ...base, paths: () => null };
    return base;
  };

  const bounds = (chart, columns) => {
    const values = columns.flat().filter((value) => value !== null);
    for (const line of chart.lines) values.push(line.at);
    for (const one of chart.series) {
      for (const value of one.high ?? []) if (value !== null) values.push(value);
    }
    if (chart.fromZero) values.push(0);
    if (chart.form === "percent") values.push(1);
    const low = Math.min(...values);
    const high = Math.max(...values);
    const room = (high - low || 1) * 0.06;
    const grounded = chart.fromZero && low >= 0;
    return [grounded ? 0 : low - room, high + (chart.form === "percent" ? 0.02 : room)];
  };

  const width = (chart) => {
    const { x } = chart;
    const first = x[0];
    const last = x[x.length - 1];
    if (x.length === 1) return [first - 1, last + 1];
    const bars = chart.series.some((one) => one.kind === "bar");
    const step = (last - first) / (x.length - 1);
    const room = bars ? step / 2 : (last - first) * 0.015;
    return [first - room, last + room];
  };

  const place = (chart, x) => {
    if (chart.axis === "day") return utcDay.format(new Date(x * 1000));
    if (chart.axis === "time") return new Date(x * 1000).toLocaleString("en-GB");
    return plain(x);
  };

  // The time of day, and under it the day where it is another than before.
  const clock = (values, step) => {
    const parts = { hour: "2-digit", minute: "2-digit" };
    if (step < 60) parts.second = "2-digit";
    if (step < 1) parts.fractionalSecondDigits = 1;
    let before = "";
    return values.map((value) => {
      const at = new Date(value * 1000);
      const day = localDay.format(at);
      if (step >= 86400) return day;
      const changed = day !== before;
      before = day;
      const text = at.toLocaleTimeString("en-GB", parts);
      return changed ? `${text}\n${day}` : text;
    });
  };

  const told = (chart, readout) => (plot) => {
    const at = plot.cursor.idx;
    if (at === null || at === undefined) {
      readout.textContent = "";
      return;
    }
    const form = forms[chart.form] ?? plain;
    const parts = [];
    for (const one of chart.series) {
      const value = one.values[at];
      if (value === null || value === undefined) continue;
      const high = one.high?.[at];
      parts.push(`${one.label} ${form(value)}${high === undefined ? "" : ` to ${form(high)}`}`);
    }
    readout.textContent = `${place(chart, chart.x[at])}: ${parts.join(" · ")}`;
  };

  const draw = (element) => {
    const chart = JSON.parse(document.getElementById(element.dataset.chart).textContent);
    const columns = chart.stacked
      ? stacked(chart.series) : chart.series.map((one) => one.values);
    const order = chart.series.map((_, at) => at);
    if (chart.stacked) order.reverse();
    const readout = document.createElement("p");
    readout.className = "readout";
    const form = forms[chart.form] ?? plain;
    const ink = colour("muted");
    const grid = { stroke: colour("grid"), width: 1 };
    const axis = { stroke: ink, font: FONT, grid, ticks: { ...grid, size: 4 } };
    const seconds = chart.axis === "number" ? undefined : 1;
    const options = {
      width: element.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: {
        x: { time: seconds !== undefined, range: () => width(chart) },
        y: { range: () => bounds(chart, columns) },
      },
      axes: [
        { ...axis, space: chart.axis === "time" ? 80 : 64, size: chart.axis === "time" ? 46 : 32 },
        {
          ...axis,
          size: (plot, values) => 14 + 7 * Math.max(2, ...(values ?? []).map((v) => v.length)),
          values: (plot, values) => values.map((value) => form(value)),
        },
      ],
      series: [{}, ...order.map((at) => series(chart, chart.series[at]))],
      hooks: { draw: [ranges(chart), across(chart)], setCursor: [told(chart, readout)] },
    };
    if (chart.axis === "day") {
      options.tzDate = (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC");
      options.axes[0].values = (plot, values) =>
        values.map((value) => utcDay.format(new Date(value * 1000)));
    }
    if (chart.axis === "time") {
      options.axes[0].values = (plot, values, at, space, step) => clock(values, step);
    }
    if (chart.axis === "number") {
      options.axes[0].values = (plot, values) => values.map((value) => plain(value));
    }
    element.replaceChildren();
    const data = [chart.x, ...order.map((at) => columns[at])];
    const plot = new uPlot(options, data, element);
    element.append(readout);
    return plot;
  };

  const drawAll = () => {
    for (const { plot } of drawn) plot.destroy();
    drawn.length = 0;
    for (const element of document.querySelectorAll("[data-chart]")) {
      drawn.push({ element, plot: draw(element) });
    }
  };

  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  const resized = new ResizeObserver(() => {
    for (const { element, plot } of drawn) {
      if (element.clientWidth && element.clientWidth !== plot.width) {
        plot.setSize({ width: element.clientWidth, height: HEIGHT });
      }
    }
  });
  for (const { element } of drawn) resized.observe(element);
})();
