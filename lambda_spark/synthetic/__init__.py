"""Generator of a made-up store's events in the REES46 format, for the demo, tests and benchmarks.

The store contains planted trends (known changes of demand) and planted pairs (products known to belong together).
Each product has a weight on each day. All random choices are in proportion to these weights: which regular user visits,
in which category a session starts, and which product comes next. A planted trend multiplies the weights of some
products by a factor from one Monday on. Compared with products without a planted trend, the demand for these products
changes by that factor, apart from chance.

The number of events of a product varies more than if the events were independent. One reason is that a session can have
several events of one product. The other reason is that some users come often.

    catalogue (categories ⊃ families ⊃ products, Zipf)      ─┐
    planted trends (factors on weights), planted pairs      ─┼─► sessions ─► delivery ─► files
    model (chunks: days, or parts of very busy days)        ─┘

Modules of this package may import no other part of `lambda_spark`.
"""
