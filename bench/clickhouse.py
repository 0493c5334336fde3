#!/usr/bin/env python3
"""The SELECTs of `keyward-bench analytics --json` once more, in ClickHouse's engine over the same Parquet files.

    keyward-bench analytics --directory DIR --json > report.json
    python3 bench/clickhouse.py report.json          (needs PyPI's chdb)

Prints each SELECT's warm times in both, their ratio, and the geometric mean of the ratios. Both use the report's number of
threads; times are the medians of the same number of rounds after a first one.
"""

import json
import math
import statistics
import sys
import time

from chdb import session

TABLES = [
    "key_verifications_v1",
    "key_verifications_per_minute_v1",
    "key_verifications_per_hour_v1",
    "key_verifications_per_day_v1",
    "key_verifications_per_month_v1",
]


def main():
    report = json.load(open(sys.argv[1], encoding="utf-8"))
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    engine = session.Session()
    engine.query("CREATE DATABASE IF NOT EXISTS bench")
    for table in TABLES:
        files = f"{report['directory']}/{table}/**/*.parquet"
        engine.query(f"CREATE VIEW bench.{table} AS SELECT * FROM file('{files}', 'Parquet')")
    settings = f" SETTINGS max_threads = {report['threads']}"
    ratios = []
    print(f"{'keyward ms':>11} {'chdb ms':>9} {'ratio':>6}  SELECT")
    for timed in report["queries"]:
        sql = timed["sql"]
        for table in sorted(TABLES, key=len, reverse=True):
            sql = sql.replace(f"FROM {table}", f"FROM bench.{table}")
        times, rows = [], 0
        for number in range(rounds + 1):
            began = time.perf_counter()
            answer = engine.query(sql + settings, "JSONCompactEachRow")
            took = (time.perf_counter() - began) * 1000
            rows = sum(1 for line in str(answer).splitlines() if line)
            if number:
                times.append(took)
        if rows != timed["rows"]:
            raise SystemExit(f"{timed['name']}: {timed['rows']} rows, and {rows} in ClickHouse")
        median = statistics.median(times)
        ratios.append(timed["median_ms"] / median)
        print(f"{timed['median_ms']:11.2f} {median:9.2f} {ratios[-1]:6.2f}  {timed['name']}")
    mean = math.exp(statistics.mean(math.log(ratio) for ratio in ratios))
    print(f"geometric mean {mean:.2f}, worst {max(ratios):.2f}")


if __name__ == "__main__":
    main()
