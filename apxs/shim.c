#include "shim.h"

#include "apr_errno.h"
#include "http_connection.h"
#include "unixd.h"

int wsf_conn_aborted(const conn_rec *c)
{
    return c->aborted;
}

void wsf_conn_set_aborted(conn_rec *c)
{
    c->aborted = 1;
}

int wsf_status_is_eagain(apr_status_t rv)
{
    return APR_STATUS_IS_EAGAIN(rv);
}

int wsf_status_is_timeup(apr_status_t rv)
{
    return APR_STATUS_IS_TIMEUP(rv);
}

int wsf_status_is_eof(apr_status_t rv)
{
    return APR_STATUS_IS_EOF(rv);
}

void wsf_brigade_append(apr_bucket_brigade *bb, const char *bytes, apr_size_t length)
{
    if (length > 0) {
        apr_bucket *e = apr_bucket_heap_create(bytes, length, NULL, bb->bucket_alloc);

        APR_BRIGADE_INSERT_TAIL(bb, e);
    }
}

void wsf_brigade_append_eos(apr_bucket_brigade *bb)
{
    apr_bucket *e = apr_bucket_eos_create(bb->bucket_alloc);

    APR_BRIGADE_INSERT_TAIL(bb, e);
}

void wsf_brigade_append_eoc(apr_bucket_brigade *bb)
{
    apr_bucket *e = ap_bucket_eoc_create(bb->bucket_alloc);

    APR_BRIGADE_INSERT_TAIL(bb, e);
}

void wsf_brigade_keep_data(apr_bucket_brigade *bb)
{
    apr_bucket *e = APR_BRIGADE_FIRST(bb);

    while (e != APR_BRIGADE_SENTINEL(bb)) {
        apr_bucket *next = APR_BUCKET_NEXT(e);

        if (APR_BUCKET_IS_METADATA(e) || e->length == (apr_size_t)-1) {
            apr_bucket_delete(e);
        }
        e = next;
    }
}

int wsf_mpm_restart_pending(void)
{
    ap_unixd_mpm_retained_data *mpm = ap_unixd_mpm_get_retained_data();
    return mpm && mpm->restart_pending;
}

int wsf_mpm_is_ungraceful(void)
{
    ap_unixd_mpm_retained_data *mpm = ap_unixd_mpm_get_retained_data();
    return mpm && mpm->is_ungraceful;
}
