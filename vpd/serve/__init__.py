"""A page on this machine on which models are tried: what it shows (:mod:`vpd.serve.answers`), what
it accepts (:mod:`vpd.serve.limits`, :mod:`vpd.serve.guard`) and the page itself
(:mod:`vpd.serve.page`)."""
