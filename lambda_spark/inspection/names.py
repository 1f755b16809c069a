"""The names under which logs know our fields, and the words by which they name our event types."""

from __future__ import annotations

import re

ALIASES: dict[str, tuple[str, ...]] = {
    "event_time": (
        "event_timestamp timestamp event_datetime ts time datetime created_at occurred_at invoice_date order_date "
        "ordered_at order_time purchase_date transaction_date date_time zeitstempel zeitpunkt bestelldatum "
        "server_time hit_time client_time event_ts transaction_dt event_dt trans_date",
        "date event_date t_dat day datum zeit unix_timestamp epoch",
    ),
    "event_type": (
        "event event_name behavior behaviour behavior_type behaviour_type interaction interaction_type event_action "
        "event_kind ereignis ereignistyp user_action",
        "action type activity aktion kind",
    ),
    "product_id": (
        "item_id product_number item_number stock_code article_id article_number aid asin produkt_id produktnummer "
        "artikel_id artikelnummer artikel_nr content_id goods_id pid",
        "sku item product article artikel produkt variant_id ean gtin",
    ),
    "category_id": ("category_number cat_id item_category_id product_category_id kategorie_id", ""),
    "category_code": (
        "category_path category_name item_category product_category department kategorie warengruppe product_type",
        "category",
    ),
    "brand": ("brand_name item_brand product_brand vendor manufacturer marke hersteller", ""),
    "price": (
        "unit_price item_price product_price preis einzelpreis stueckpreis sale_price sales_price price_usd",
        "amount betrag",
    ),
    "user_id": (
        "visitor_id customer_id customer_number cust_id uid member_id account_id buyer_id kunden_id kundennummer "
        "kunden_nr client_id shopper_id reviewer_id person_id",
        "user visitor customer kunde member buyer user_pseudo_id anonymous_id cookie_id device_id",
    ),
    "user_session": (
        "session_id session visit_id ga_session_id sitzung session_key",
        "order_id order_number invoice_number invoice_id invoice transaction_id basket_id bestellnummer bestell_nr "
        "rechnungsnummer",
    ),
    "event_id": ("message_id insert_id event_uuid hit_id", "uuid"),
}
"""Other names of our fields: first those that mean only this, then those that may mean something else."""

ORDER = ("order", "invoice", "transaction", "purchase", "bestell", "rechnung", "receipt", "basket", "kauf")
"""Parts of the names of columns that only a log of orders has."""
QUANTITY = ("quantity", "qty", "menge", "anzahl", "units")
"""Names of a column with the number of pieces."""

WORDS: dict[str, str] = {
    "view": "view views viewed pv click clicks clicked viewitem productviewed productview viewproduct itemview "
    "itemviewed viewcontent detail detailview productdetailview",
    "cart": "cart carts addtocart addtobasket productadded addedtocart addedtobasket add basket cartadd atc addcart",
    "remove_from_cart": "removefromcart productremoved removefrombasket cartremove removedfromcart removecart",
    "purchase": "purchase purchases purchased buy buys bought order orders ordercompleted ordered transaction "
    "transactions sale sales orderplaced placeorder completeorder checkoutcompleted checkoutcomplete",
    "ignore": "fav favorite favourite pageview sessionstart firstvisit userengagement scroll viewitemlist selectitem "
    "viewcart begincheckout addshippinginfo addpaymentinfo productlistviewed productssearched productclicked "
    "cartviewed checkoutstarted search login logout signup wishlist addtowishlist removefromwishlist refund "
    "orderrefunded ordercancelled orderupdated viewsearchresults viewpromotion selectpromotion",
}
"""Words for our event types, in English and without signs between their parts."""

FOREIGN: dict[str, str] = {
    "view": "ansicht angesehen aufruf produktansicht artikelansicht klick vue consultation vista visto visualizzazione "
    "visualizacao bekeken weergave visning wyswietlenie просмотр 浏览 点击",
    "cart": "warenkorb inwarenkorb indenwarenkorb korb panier ajoutpanier ajoutaupanier carrito carrello carrinho "
    "winkelwagen winkelmand varukorg koszyk корзина 加购",
    "remove_from_cart": "entfernt ausdemwarenkorb retirepanier",
    "purchase": "kauf gekauft kaufen bestellung bestellt achat commande compra pedido acquisto ordine aankoop "
    "bestelling kop zakup покупка 购买",
}
"""Words of other languages, for which an event type is proposed but not taken."""


def normal(name: str) -> str:
    """Reduce a name to its letters and digits, in lower case, with `number` for `no` and `nr` at its end."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = re.sub(r"\b(no|nr|num)\b\.?$", "number", re.sub(r"[_\W]+", " ", words).strip())
    return words.replace(" ", "")


_RANKS = {
    normal(name): (field, rank)
    for field, tiers in ALIASES.items()
    for rank, names in enumerate(((field,), *(tier.split() for tier in tiers)))
    for name in names
}
_MEANINGS = {word: (event, foreign) for foreign, words in enumerate((WORDS, FOREIGN)) for event, text in words.items()
             for word in text.split()}  # fmt: skip


def field_of(path: str) -> tuple[str, int] | None:
    """Find the field that a column's name means.

    Args:
        path: Name of a column, or a path.

    Returns:
        The field, and how sure the name is: 0 for our own name, 1 for a name that means only this, 2 for one that may
        mean something else. None for an unknown name.
    """
    parts = path.split(".")
    # `customer.id` is known as customer_id. What only an outer part says, like `user.address`, is not known.
    for name in (parts[-1], "_".join(parts[-2:])):
        if normal(name) in _RANKS:
            return _RANKS[normal(name)]
    return None


def is_known(name: str) -> bool:
    """Return whether a name is one of a column that is known."""
    return field_of(name) is not None or normal(name) in QUANTITY


def event_of(word: str) -> tuple[str, bool] | None:
    """Find the event type that a word means.

    Returns:
        The event type or `ignore`, and whether the word is one of another language. None for an unknown word.
    """
    found = _MEANINGS.get(re.sub(r"[_\W]+", "", word.lower()))
    return (found[0], bool(found[1])) if found else None
