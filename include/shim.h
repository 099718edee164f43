/*
 * The few things of httpd's C API that are macros, inline code or bitfields,
 * whose layout only a C compiler with httpd's own headers is sure of.
 */
#ifndef WSF_SHIM_H
#define WSF_SHIM_H

#include "httpd.h"
#include "apr_buckets.h"

/* conn_rec.aborted is a bitfield. */
int wsf_conn_aborted(const conn_rec *c);
void wsf_conn_set_aborted(conn_rec *c);

/* Macros of apr_errno.h. */
int wsf_status_is_eagain(apr_status_t rv);
int wsf_status_is_timeup(apr_status_t rv);
int wsf_status_is_eof(apr_status_t rv);

/* Appends a copy of the bytes, in a bucket no larger than they are. */
void wsf_brigade_append(apr_bucket_brigade *bb, const char *bytes, apr_size_t length);

/* Appends the end of a response. */
void wsf_brigade_append_eos(apr_bucket_brigade *bb);

/* Appends the end of a connection. */
void wsf_brigade_append_eoc(apr_bucket_brigade *bb);

/* Deletes all buckets but those of a known length: no metadata, no socket. */
void wsf_brigade_keep_data(apr_bucket_brigade *bb);

/* What the parent's MPM was told to do: fields of unixd.h. */
int wsf_mpm_restart_pending(void);
int wsf_mpm_is_ungraceful(void);

#endif
