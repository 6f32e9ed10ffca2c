"""Longhaul's wire messages, made from proto/longhaul/v1 by generate.sh."""
