"""Mean and standard deviation, for examples/modules.yaml."""

import statistics


def handler(input):
    values = input["values"]
    return {"mean": statistics.fmean(values), "deviation": statistics.pstdev(values)}
