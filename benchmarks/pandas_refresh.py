"""The same month with httpx and pandas, as it is usually written: parsed to dicts, flattened, one Parquet file of doubles.

`python pandas_refresh.py PROVIDER URL FILE`.
"""

import json
import sys
from datetime import timedelta

import pandas as pd
from floor import END, FIRST, by_httpx, plivo, ycloud

if __name__ == "__main__":
    provider, url, file = sys.argv[1:]
    get = by_httpx(url)
    bodies = ycloud(get, FIRST, END - timedelta(days=1)) if provider == "ycloud" else plivo(get)
    pages = [json.loads(body) for body in bodies]
    if provider == "ycloud":
        items = [item for page in pages for item in page["items"]]
        whose = ["date", "isTransient", "channel", "wabaId", "regionCode"]
        charges = pd.json_normalize(items, "costItems", whose, errors="ignore") if items else pd.DataFrame({"cost": []})
    else:
        charges = pd.DataFrame([row for page in pages for row in [*page["usage"], *page["other_charges"]]])
        if charges.empty:
            charges = pd.DataFrame({"total_amount": []})
    charges.to_parquet(file, compression="zstd")
