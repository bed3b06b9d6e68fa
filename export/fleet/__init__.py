"""The repository that stations pull bundles from: a folder of signed lists and bundles, for any static web server."""
