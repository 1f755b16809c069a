"""A made-up store in the REES46 format, with planted trends and planted pairs, for the demo, tests and benchmarks.

Each product has a weight on each day. Every choice is made in proportion to these weights: which regular visits, in
which category a session starts, which product comes next. A planted trend multiplies some weights by a factor from one
Monday on. Compared with products without a planted trend, demand changes by that factor, apart from chance. Chance is
greater than for independent events, because sessions see a product several times and some users come often.

    catalogue (categories ⊃ families ⊃ products, Zipf)      ─┐
    planted trends (factors on weights), planted pairs      ─┼─► sessions ─► delivery ─► files
    model (chunks: days, or parts of very busy days)        ─┘

May import: nothing of the package.
"""
