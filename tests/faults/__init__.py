"""Faults that every command must survive: failing reads, full disks, kills, damaged and hostile files, bad servers."""
