"""A made-up store in the REES46 format, with planted trends and pairs: for the demo, the tests and benchmarks.

Demand has one source: every product has a weight on every day, and every choice (which regular visits, in which
category a session starts, which product comes next) is made in proportion to these weights. A planted trend is a factor
on weights from one Monday on, so demand changes by that very factor, compared with all that is not planted, but for
chance. Chance is greater than for independent events: sessions see a thing several times, and some users come often.

    catalogue (categories ⊃ families ⊃ products, Zipf)  ─┐
    plants (factors on weights, partners)               ─┼─► sessions ─► delivery ─► files
    model (chunks: days, or parts of very busy days)    ─┘

May import: nothing of the package.
"""
