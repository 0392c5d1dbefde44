// The end of the script for mathematics that the build joins from MathJax's parts: what is there already, and how a page
// is set - a few formulas at a time, so that it can be read and scrolled meanwhile: those on the first screens at once,
// the others when the reader moves, or after ten seconds. `MathJax.startup.promise` is kept when all are set.
(() => {
  const { Loader } = MathJax._.components.loader;
  Loader.preLoad(...$PARTS);

  MathJax._.output.chtml.fonts.tex_ts.TeXFont.defaultFonts = {}; // they are in the style sheet

  const moment = () => new Promise(resolve => setTimeout(resolve));
  const sorted = formulas => {
    const far = formula => {
      // Asking where something is lays out all around it: of a section that is far away only its own frame is asked.
      for (const part of [formula.closest("article > section > section"), formula.closest("section")]) {
        const { top, bottom } = (part ?? formula).getBoundingClientRect();
        if (Math.max(top, -bottom) > 2 * innerHeight) return Math.max(top, -bottom);
      }
      return Math.abs(formula.getBoundingClientRect().top);
    };
    return formulas.map(formula => [far(formula), formula]).sort(([one], [other]) => one - other);
  };
  const set = async formulas => {
    for (let i = 0; i < formulas.length; i += 4) {
      await MathJax.typesetPromise(formulas.slice(i, i + 4));
      await moment();
    }
  };
  const awake = new Promise(resolve => {
    for (const sign of ["scroll", "keydown", "pointerdown", "beforeprint"]) addEventListener(sign, resolve, { once: true });
    setTimeout(resolve, 10000);
  });
  MathJax.config.startup.pageReady = async () => {
    const all = [...document.querySelectorAll(".math")];
    const near = sorted(all).filter(([far]) => far < 2 * innerHeight).map(([, formula]) => formula);
    await set(near);
    await awake;
    await set(sorted(all.filter(formula => !near.includes(formula))).map(([, formula]) => formula));
  };
})();
