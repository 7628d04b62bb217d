"""GS1 keys as the plant's systems print them: check digits, GTIN-14, SSCC-18, and their EPC URNs (GS1 General Specifications 7.9, TDS 6)."""


def check_digit(digits: str) -> str:
    """The modulo-10 digit that follows `digits`."""
    total = sum(int(d) * (3 if n % 2 == 0 else 1) for n, d in enumerate(reversed(digits)))
    return str(-total % 10)


def gtin14(prefix: str, reference: int, indicator: int = 0) -> str:
    """The GTIN-14 of an item reference under a company prefix of 6 to 12 digits."""
    digits = f"{indicator}{prefix}{reference:0{12 - len(prefix)}d}"
    if len(digits) != 13:
        raise ValueError(f"item reference {reference} does not fit company prefix {prefix}: give it fewer digits")
    return digits + check_digit(digits)


def sscc18(prefix: str, number: int, extension: int = 0) -> str:
    """The SSCC of the `number`-th logistic unit of a company."""
    digits = f"{extension}{prefix}{number:0{16 - len(prefix)}d}"
    if len(digits) != 17:
        raise ValueError(f"unit number {number} does not fit company prefix {prefix}: the number range is used up")
    return digits + check_digit(digits)


def gln13(prefix: str, reference: int) -> str:
    """The GLN of a place of a company."""
    digits = f"{prefix}{reference:0{12 - len(prefix)}d}"
    return digits + check_digit(digits)


def sgtin_urn(gtin: str, serial: str, prefix_length: int) -> str:
    """One serial of an item as an EPC."""
    return f"urn:epc:id:sgtin:{_parts(gtin, prefix_length)}.{serial}"


def lgtin_urn(gtin: str, lot: str, prefix_length: int) -> str:
    """One lot of an item as an EPC class."""
    return f"urn:epc:class:lgtin:{_parts(gtin, prefix_length)}.{lot}"


def sscc_urn(sscc: str, prefix_length: int) -> str:
    """A logistic unit as an EPC."""
    return f"urn:epc:id:sscc:{sscc[1 : 1 + prefix_length]}.{sscc[0]}{sscc[1 + prefix_length : 17]}"


def sgln_urn(prefix: str, reference: int) -> str:
    """A place of a company as an EPC, without extension."""
    return f"urn:epc:id:sgln:{prefix}.{reference:0{12 - len(prefix)}d}.0"


def _parts(gtin: str, prefix_length: int) -> str:
    """Company prefix, then indicator and item reference: an EPC has no check digit."""
    return f"{gtin[1 : 1 + prefix_length]}.{gtin[0]}{gtin[1 + prefix_length : 13]}"
