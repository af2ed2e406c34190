"""Validates JSON documents: {"schema": ..., "documents": [...]} on standard input, a list of lists of complaints on output."""

import json
import sys

from jsonschema import Draft7Validator

request = json.load(sys.stdin)
Draft7Validator.check_schema(request["schema"])
validator = Draft7Validator(request["schema"])
json.dump([[error.message for error in validator.iter_errors(document)] for document in request["documents"]], sys.stdout)
