"""The fields of an event in the REES46 format, and the event types there are."""

FIELDS = (
    "event_time",
    "event_type",
    "product_id",
    "category_id",
    "category_code",
    "brand",
    "price",
    "user_id",
    "user_session",
)
"""The nine columns of the REES46 format, in its order."""

REQUIRED = ("event_time", "event_type", "product_id", "user_id")
EVENT_TYPES = ("view", "cart", "remove_from_cart", "purchase")
INTERACTIONS = ("view", "cart", "purchase")
"""Event types that show interest in a product: the signals of demand, and what pairs and profiles are made of."""
