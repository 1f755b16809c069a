"""Generator of a made-up store's events in the REES46 format, for the demo, tests and benchmarks.

The store contains planted trends (known changes of demand) and planted pairs (products known to belong together).
Each product has a weight on each day. Every random choice is in proportion to these weights: which regular user visits,
in which category a session starts, and which product comes next. A planted trend multiplies the weights of some
products by a factor from one Monday on. Compared with products without a planted trend, their demand changes by that
factor, apart from chance. Counts vary more than those of independent events, because a session can have several events
of one product and some users come often.

    catalogue (categories ⊃ families ⊃ products, Zipf)      ─┐
    planted trends (factors on weights), planted pairs      ─┼─► sessions ─► delivery ─► files
    model (chunks: days, or parts of very busy days)        ─┘

May import: nothing of the package.
"""
