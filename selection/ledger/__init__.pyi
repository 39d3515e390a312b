from .ledger import Ledger as Ledger
from .ledger_reader import LedgerReader as LedgerReader, LedgerRows as LedgerRows
