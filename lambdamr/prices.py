"""What AWS charges, by region: the one table that every estimate and every cost uses.

US dollars, without taxes, free tiers and volume discounts, so what is shown is the most that the
bill has. Source: the AWS price list (https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/,
offers AWSLambda and AmazonS3), lines GB-Second, GB-Second-ARM, Request, Requests-Tier1,
Requests-Tier2 and TimedStorage-ByteHrs, first tier each. docs/cost.md tells how old what it was
compared with is. A region is in the table only if each of its numbers was found.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

PRICES_DATE = "2026-09"
"""When the table was last compared with the price list."""

DEFAULT_REGION = "us-east-1"

ARM = "arm64"


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars in one region."""

    region: str
    put: float
    """One PUT, COPY, POST or LIST."""
    get: float
    """One GET, HEAD or other read; deletions are free."""
    storage_gb_month: float
    gb_s_x86: float = 0.0000166667
    """A GB of function memory for a second, x86_64."""
    gb_s_arm: float = 0.0000133334
    """The same, arm64."""
    invocation: float = 0.20e-6

    def gb_s(self, architecture: str) -> float:
        """Return the price of a GB-second on an architecture."""
        return self.gb_s_arm if architecture == ARM else self.gb_s_x86


class UnknownPrices(ValueError):
    """The table has no prices of a region; what is shown of a job goes without its cost then."""


PRICE_NAMES = tuple(each.name for each in fields(Prices) if each.name != "region")


def _row(region: str, put_1000: float, get_1000: float, storage: float) -> tuple[str, Prices]:
    return region, Prices(region, put_1000 / 1000, get_1000 / 1000, storage)


PRICES: dict[str, Prices] = dict(
    (
        # region, per 1,000 PUT, per 1,000 GET, GB-month
        _row("us-east-1", 0.005, 0.0004, 0.023),
        _row("us-east-2", 0.005, 0.0004, 0.023),
        _row("us-west-1", 0.0055, 0.00044, 0.026),
        _row("us-west-2", 0.005, 0.0004, 0.023),
        _row("ca-central-1", 0.0055, 0.00044, 0.025),
        _row("eu-central-1", 0.0054, 0.00043, 0.0245),
        _row("eu-west-1", 0.005, 0.0004, 0.023),
        _row("eu-west-2", 0.0053, 0.00042, 0.024),
        _row("eu-west-3", 0.0053, 0.00042, 0.024),
        _row("eu-north-1", 0.005, 0.0004, 0.023),
        _row("ap-south-1", 0.005, 0.0004, 0.025),
        _row("ap-southeast-1", 0.005, 0.0004, 0.025),
        _row("ap-southeast-2", 0.0055, 0.00044, 0.025),
        _row("ap-northeast-1", 0.0047, 0.00037, 0.025),
        _row("ap-northeast-2", 0.0045, 0.00035, 0.025),
        _row("sa-east-1", 0.007, 0.00056, 0.0405),
    )
)
"""By region. Functions cost the same in all of these."""


def prices_of(region: str, changes: Mapping[str, float] | None = None) -> Prices:
    """Return the prices of a region.

    Args:    changes: prices of your own by field of `Prices`, as a contract or a newer list has
             them; with all of "put", "get" and "storage_gb_month" the region may be one that the
             table does not have.
    Raises:  UnknownPrices: of a region. ValueError: a name that is no price, or a negative price.
    """
    given = dict(changes or {})
    for name, value in given.items():
        check_price(name, value)
    if region in PRICES:
        return Prices(region, **{**_fields(PRICES[region]), **given})
    missing = {"put", "get", "storage_gb_month"} - set(given)
    if missing:
        raise UnknownPrices(
            f"The prices of {region!r} are not in the table of {PRICES_DATE}, which has "
            f"{', '.join(PRICES)}. Give {', '.join(sorted(missing))} as prices=, or by `lambdamr "
            "config set prices.NAME DOLLARS`."
        )
    return Prices(region, **given)


def check_price(name: str, value: object) -> None:
    """Refuse what is no price.

    Raises:  ValueError: no such field of `Prices`, or no number that a price can be.
    """
    if name not in PRICE_NAMES:
        raise ValueError(f"There is no price {name!r}; the names are {', '.join(PRICE_NAMES)}.")
    if not _is_price(value):
        raise ValueError(f"The price {name} must be a number >= 0, got {value!r}.")


def _is_price(value: object) -> bool:
    """Whether a value of a configuration file can be one."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def _fields(prices: Prices) -> dict[str, float]:
    return {name: getattr(prices, name) for name in PRICE_NAMES}
