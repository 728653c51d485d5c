// Draws each chart into the element of its name; the numbers stand in the page as JSON.
const specs = JSON.parse(document.getElementById("specs").textContent);
for (const [name, spec] of Object.entries(specs)) {
  const place = document.getElementById("chart-" + name);
  if (place) vegaEmbed(place, spec, {mode: "vega-lite", renderer: "svg", actions: false, ast: true});
}
