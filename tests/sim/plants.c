/*
 * tests/sim/plants.c - which planted bug is switched on (gateway/base/plant.h).
 *
 * Owns:     plant_now.
 * Runs on:  the main thread, before any seed.
 * Contract: PLANT_NONE unless --plant says otherwise.
 * Failure:  none.
 * Bounds:   none.
 * Tests:    tests/system/test_sim.py
 */
#ifndef HIKYAKU_PLANTS
#define HIKYAKU_PLANTS
#endif
#include "gateway/base/plant.h"

enum plant plant_now;
