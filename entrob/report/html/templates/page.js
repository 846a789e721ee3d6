// Draws charts when they come into view, in the colors of the page, and moves their sliders.
(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  const views = new Map();

  const config = () => {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const [text, soft, line, paper] = ["--text", "--soft", "--line", "--paper"].map(color);
    const font = "system-ui, sans-serif";
    const words = { labelColor: text, titleColor: text, labelFont: font, titleFont: font };
    return {
      background: "transparent",
      font,
      axis: { ...words, gridColor: line, domainColor: soft, tickColor: soft, titleFontWeight: 500 },
      legend: { ...words, titleFontWeight: 500 },
      header: { ...words, titleFontWeight: 500 },
      title: { color: text, subtitleColor: soft, font, fontWeight: 600, anchor: "start" },
      text: { color: text, font },
      view: { stroke: null },
      range: { diverging: scheme.matches ? ["#e2714f", paper, "#4aa3e8"] : ["#b2182b", "#f4f4f4", "#2166ac"] },
    };
  };

  // What is not known is a dash, as in the tables.
  const said = (value) =>
    String(value) === "null" ? "–" : String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;");

  const draw = async (div) => {
    const options = {
      config: config(),
      renderer: "svg",
      actions: { export: true, source: false, compiled: false, editor: false },
      tooltip: { theme: scheme.matches ? "dark" : "light", sanitize: said },
    };
    const { view } = await vegaEmbed(div, specs[div.dataset.chart], options);
    views.get(div)?.finalize();
    views.set(div, view);
    const slider = div.closest(".slid")?.querySelector("input");
    if (slider) await view.signal("place", Number(slider.value)).runAsync();
    div.dataset.drawn = "yes";
  };

  const seen = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        seen.unobserve(target);
        draw(target);
      }
    },
    { rootMargin: "600px" },
  );
  document.querySelectorAll("[data-chart]").forEach((div) => seen.observe(div));

  document.querySelectorAll(".slid input").forEach((slider) => {
    const places = JSON.parse(slider.dataset.places);
    slider.addEventListener("input", () => {
      slider.nextElementSibling.value = places[slider.value];
      for (const div of slider.closest(".slid").querySelectorAll("[data-chart]"))
        views.get(div)?.signal("place", Number(slider.value)).runAsync();
    });
  });

  const recolor = () => {
    // The class is what the tables look at.
    document.documentElement.classList.toggle("dark", scheme.matches);
    for (const div of views.keys()) draw(div);
  };
  recolor();
  scheme.addEventListener("change", recolor);
  addEventListener("beforeprint", () => document.querySelectorAll("[data-chart]").forEach(draw));
})();
