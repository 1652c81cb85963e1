"""What communications providers charge, to the last digit: bytes → landing → rows → Arrow → Parquet → warehouse → views."""
