# This file is part of a module for Tryton. GPL-3.0-or-later: see the COPYRIGHT file beside it.
