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
"""The nine columns of the REES46 format, in the order of the columns in a file."""

REQUIRED = ("event_time", "event_type", "product_id", "user_id")
"""The fields that every valid event has. All other fields may be empty."""
EVENT_TYPES = ("view", "cart", "remove_from_cart", "purchase")
INTERACTIONS = ("view", "cart", "purchase")
"""Event types that show a user's interest in a product. Jobs compute demand, baskets and profiles from such events."""
