package batchapi

import (
	"net/http"
	"strconv"
)

// autopsyBody is the answer to autopsy.
type autopsyBody struct {
	Job  string `json:"job"`
	Task string `json:"task"`
	Autopsy
}

// autopsy serves the report on a failed attempt.
func (c *call) autopsy() error {
	j, t, err := c.task()
	if err != nil {
		return err
	}
	attempt := uint64(0)
	if v := c.query.Get("attempt"); v != "" {
		if attempt, err = strconv.ParseUint(v, 10, 32); err != nil || attempt == 0 {
			return badQuery("attempt", v, "it is no number of an attempt, from 1")
		}
	}
	a, err := c.s.Backend.Autopsy(c.ctx(), j.ID, t.ID, uint32(attempt))
	if err != nil {
		return err
	}
	c.write(http.StatusOK, autopsyBody{j.ID, t.ID, a})
	return nil
}
