"""The defenses that Z-Mask is compared with (supplement, Section F): HN, FPDA, LGS and MaskNet."""
