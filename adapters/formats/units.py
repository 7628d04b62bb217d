"""X12's own unit codes (data element 355) as UN/ECE Recommendation 20.

An X12 code is never taken as the Rec 20 code that looks the same: ST is a set in X12 and a sheet in Rec 20. What the table does not have is
unknown until configuration names it for its partner.
"""

from collections.abc import Mapping


def from_x12(code: str, own: Mapping[str, str]) -> str | None:
    """The Rec 20 code of an X12 unit: what configuration says for the partner, else the table, else None."""
    return own.get(code) or own.get(code.upper()) or X12.get(code.upper())


def to_x12(code: str, own: Mapping[str, str]) -> str | None:
    """The X12 unit of a Rec 20 code that `from_x12` reads as the same: the partner's own, else the table's; None where there is none."""
    named = sorted(unit for unit, meant in own.items() if meant == code)
    return next((unit for unit in (*named, _FROM_REC20.get(code, "")) if unit and from_x12(unit, own) == code), None)


# Packages keep the codes that Rec 20 had for them before they moved to Recommendation 21: they are in the list and say which package is counted.
X12 = {
    "01": "LBR", "50": "KGM", "AY": "C62", "BA": "BL", "BC": "BJ", "BD": "BE", "BF": "BFT", "BG": "BG", "BO": "BO", "BR": "BLL", "BX": "BX",
    "CA": "CS", "CC": "CMQ", "CF": "FTQ", "CH": "CH", "CI": "INQ", "CL": "CY", "CM": "CMT", "CN": "CA", "CO": "MTQ", "CP": "CR", "CR": "MTQ",
    "CT": "CT", "CW": "CWA", "CY": "YDQ", "DA": "DAY", "DR": "DR", "DZ": "DZN", "EA": "EA", "FO": "OZA", "FT": "FOT", "GA": "GLL", "GI": "GLI",
    "GR": "GRM", "GS": "GRO", "HC": "CEN", "HR": "HUR", "HU": "CEN", "IN": "INH", "JR": "JR", "KE": "KG", "KG": "KGM", "KT": "KT", "LB": "LBR",
    "LF": "LF", "LO": "LO", "LT": "LTR", "MC": "MC", "ME": "MGM", "MJ": "MIN", "ML": "MLT", "MM": "MMT", "MO": "MON", "MP": "TNE", "MR": "MTR",
    "OZ": "ONZ", "PA": "PL", "PC": "H87", "PD": "PD", "PF": "PF", "PH": "PA", "PK": "PK", "PL": "PF", "PN": "LBR", "PR": "PR", "PT": "PT",
    "QT": "QT", "RA": "RA", "RE": "RL", "RL": "RO", "RM": "RM", "SC": "CMK", "SF": "FTK", "SH": "ST", "SI": "INK", "SM": "MTK", "SO": "SO",
    "ST": "SET", "SY": "YDK", "TB": "TU", "TH": "MIL", "TN": "STN", "TY": "PU", "UN": "C62", "VI": "VI", "YD": "YRD", "YR": "ANN",
}  # fmt: skip
"""ASC X12 data element 355 to Rec 20."""

# Where several X12 codes mean one of Rec 20, the one that partners use.
_FROM_REC20 = {code: unit for unit, code in X12.items()} | {
    "C62": "UN", "CEN": "HC", "KGM": "KG", "LBR": "LB", "MTQ": "CR", "PF": "PF",
}  # fmt: skip
