// The end of the script for mathematics that the build joins from MathJax's parts: what is there already, which part of
// a font holds which letters, and how a page is set - a few formulas at a time, those on the screen first, so
// that it can be read and scrolled meanwhile. `MathJax.startup.promise` is kept when all are set.
(() => {
  const { Loader } = MathJax._.components.loader;
  Loader.preLoad(...$PARTS);

  const faces = MathJax._.output.chtml.fonts.tex_ts.TeXFont.defaultFonts;
  for (const [name, ranges] of Object.entries($RANGES)) {
    const key = Object.keys(faces).find(key => faces[key].src?.includes(`/${name}.woff`));
    for (const [file, range] of Object.entries(ranges)) {
      const src = faces[key].src.replace(`${name}.woff`, file);
      faces[`@font-face /* ${file} */`] = { ...faces[key], src, "unicode-range": range };
    }
    delete faces[key];
  }

  const moment = () => new Promise(resolve => setTimeout(resolve));
  MathJax.config.startup.pageReady = async () => {
    const far = formula => Math.abs(formula.getBoundingClientRect().top);
    const near = [...document.querySelectorAll(".math")].map(formula => [far(formula), formula]);
    const waiting = near.sort(([one], [other]) => one - other).map(([, formula]) => formula);
    while (waiting.length) {
      await MathJax.typesetPromise(waiting.splice(0, 4));
      await moment();
    }
  };
})();
