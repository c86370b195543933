"""Packages of AOTInductor: .pt2 files that are loaded without this project."""
