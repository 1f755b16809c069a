"""The fields and event types of the REES46 format, in which a store delivers its events."""

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
"""The nine columns of the REES46 format, in the order of its files."""

REQUIRED = ("event_time", "event_type", "product_id", "user_id")
"""The fields that every valid event has; the others may be empty."""
EVENT_TYPES = ("view", "cart", "remove_from_cart", "purchase")
INTERACTIONS = ("view", "cart", "purchase")
"""The event types that show interest in a product. Demand, baskets and profiles are computed from them."""
